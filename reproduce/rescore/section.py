"""Show the answer to one question about released files: on the terminal, as CSVs and on a page."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import operating_points, tables
from reproduce.rescore.score import text_width


class Section(NamedTuple):
    """One question, its answer in words, and the numbers."""

    title: str
    short: str  # the answer in one sentence
    more: str  # what else one should know
    shown: dict[str, pd.DataFrame]  # table for people, by caption
    frames: dict[str, pd.DataFrame]  # all numbers, by the name of their CSV

    def page(self) -> str:
        """Return the section as Markdown, without its title."""
        parts = [f"{self.short} {self.more}"]
        for caption, table in self.shown.items():
            parts += [f"{caption}:", tables.to_markdown(table).strip()]
        return "\n\n".join(parts)

    def write(self, folder: Path) -> None:
        """Print the section and write its CSVs to a folder."""
        for name, frame in self.frames.items():
            tables.to_csv(frame, folder / f"{name}.csv")
        print(f"{tables.titled(self.title, f'{self.short} {self.more}')}\n")
        for caption, table in self.shown.items():
            print(f"{caption}:\n\n{tables.to_text(table, text_width())}")
        print(f"Written to {folder}: {', '.join(f'{name}.csv' for name in self.frames)}.")


ALL = "all"  # every label of every image


def statements(
    truth: np.ndarray,
    said: np.ndarray,
    names: list[str],
    patients: np.ndarray,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Score statements of 0 and 1 about each label like a reader's, and those of all labels.

    Return `operating_points.table`: PPV is the share of the statements 1 that are true, and
    sensitivity the share of the positives that a statement 1 names.
    """
    wholes = truth.reshape(-1, 1), said.reshape(-1, 1), [ALL], np.repeat(patients, len(names))
    return pd.concat(
        operating_points.table(
            targets, ones, columns, np.full(len(columns), 0.5), who, resamples=resamples, seed=seed
        )
        for targets, ones, columns, who in ((truth, said, names, patients), wholes)
    )


def percent(share: float) -> str:
    """Return a share as a whole percentage, `70 %`."""
    return f"{100 * share:.0f} %"
