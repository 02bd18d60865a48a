"""Draw phantoms (synthetic radiographs) by NIH's own ChestX-ray14 label file.

They have the findings, patients, sex, views and official lists of its rows.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from data import DataError, labels
from data.phantom import drawing
from data.phantom.layouts import Shot
from data.progress import with_progress

LABEL_FILE, LISTS = "Data_Entry_2017_v2020.csv", ("train_val_list.txt", "test_list.txt")


def rows(released: Path) -> pd.DataFrame:
    """Return the rows of NIH's label file."""
    return pd.read_csv(label_file(released, LABEL_FILE), dtype=str)


def draw(folder: Path, images: int, pixels: int, released: Path) -> None:
    """Draw about `images` images of whole patients, and write their rows and lists."""
    table = of_whole_patients(rows(released), "Patient ID", images)
    folder.mkdir(parents=True)
    table.to_csv(folder / LABEL_FILE, index=False, lineterminator="\n")
    for name in LISTS:
        listed = pd.read_csv(label_file(released, name), header=None, dtype=str)[0]
        kept = table.loc[table["Image Index"].isin(listed), "Image Index"]
        (folder / name).write_text("".join(f"{image}\n" for image in kept))
    strengths = np.random.default_rng(0).normal(0.88, 0.28, (len(table), len(labels.CHESTXRAY14)))
    of_label = dict(zip(labels.CHESTXRAY14, strengths.clip(0.3, 1.4).T, strict=True))
    shots = []
    for number, row in enumerate(table.to_dict("records")):
        findings = [name for name in row["Finding Labels"].split("|") if name != labels.NO_FINDING]
        shot = Shot(
            path=f"images/{row['Image Index']}",
            number=number,
            patient=int(row["Patient ID"]),
            female=row["Patient Gender"] == "F",
            view=row["View Position"],
            findings=tuple((name, round(float(of_label[name][number]), 3)) for name in findings),
        )
        shots.append(shot)
    (folder / "images").mkdir()
    parts = [(folder, pixels, shots[at : at + 50]) for at in range(0, len(shots), 50)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        drawn = zip(parts, pool.map(_draw_part, parts), strict=True)
        for _ in with_progress(drawn, "draw", len(shots), images=lambda pair: len(pair[0][2])):
            pass
    drawn_by = {"dataset": "chestxray14", "images": len(table), "labels": LABEL_FILE}
    # Readers mark the images as phantoms because of this file.
    (folder / "phantom.json").write_text(json.dumps(drawn_by) + "\n")


def _draw_part(part: tuple[Path, int, list[Shot]]) -> None:
    cv2.setNumThreads(1)
    folder, pixels, shots = part
    for shot in shots:
        image = drawing.draw(shot, pixels, seed=0)[0]
        cv2.imwrite(str(folder / shot.path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def label_file(released: Path, name: str) -> Path:
    """Return the path of one of NIH's files, as released or with gzip."""
    for path in (released / name, released / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{released} has no {name}. Give the folder of NIH's label file and its two lists with "
        "--labels, or leave --labels out to rehearse only CheXpert."
    )


def of_whole_patients(table: pd.DataFrame, column: str, images: int) -> pd.DataFrame:
    """Return about `images` rows of a label file: all rows of randomly drawn patients, in order."""
    patients = table[column].to_numpy()
    different, codes, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(different))
    taken = order[: int(np.searchsorted(np.cumsum(counts[order]), images)) + 1]
    return table[np.isin(codes, taken)]
