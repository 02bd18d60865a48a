"""Frames as ChestX-ray14's reader returns them."""

import pandas as pd

from data import labels


def nih_frame(positive: list[tuple[str, ...]], sets: list[str]) -> pd.DataFrame:
    """Return images with these findings, each of its own patient."""
    table = pd.DataFrame(
        [[float(name in names) for name in labels.CHESTXRAY14] for names in positive],
        columns=list(labels.CHESTXRAY14),
    )
    ids = [str(number) for number in range(1, len(positive) + 1)]
    frame = table.assign(split=sets, patient_id=ids, image_path=ids)
    frame.attrs["dataset"] = "chestxray14"
    return frame
