"""Count how often the probabilities of a table's rows contradict their hierarchy.

The papers' case for hierarchies is that a parent is at least as probable as its child. Rows that
multiply along a path keep this by construction; the others do not have to.

results/PAPER/DATASET/violations.csv           every row, seed, parent and child
                      consistency.csv, .md     one line per row
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data import label_tree
from evaluation import hierarchy, tables
from reproduce.tables.scoring import Scored

TREES = dict(label_tree.HIERARCHIES.values())  # all labels of a row -> the hierarchy over them
PER_IMAGES = 100
TITLE = (
    f"Contradictions of the hierarchy at 0.5, and children above parents, per {PER_IMAGES} images"
)


def write(folder: Path, scored: Mapping[str, Scored]) -> None:
    """Write and print the table of all rows that predict a whole hierarchy."""
    found = violations(scored)
    if found.empty:
        return
    tables.to_csv(found, folder / "violations.csv")
    table = summary(found)
    tables.write(table.reset_index(), folder, "consistency")
    print("\n" + tables.titled(TITLE, tables.to_text(table.reset_index())))


def violations(scored: Mapping[str, Scored]) -> pd.DataFrame:
    """Return every parent and child of every row and seed that predicts a whole hierarchy."""
    frames = []
    for row, row_scores in scored.items():
        for seed, predicted in enumerate(row_scores.predictions):
            names = tuple(map(str, predicted.labels))
            if names in TREES:
                parents = label_tree.parent_matrix(TREES[names])
                of_pairs = hierarchy.violations(predicted.mean, parents, names)
                frames.append(of_pairs.assign(row=row, run=seed))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row: its violations per 100 images, and how large they are."""
    lines = {row: of_row(own) for row, own in found.groupby("row", sort=False)}
    return pd.DataFrame(lines).T.rename_axis("row")


def of_row(found: pd.DataFrame) -> dict[str, str]:
    """Return the violations of one row, over all parents, children and seeds.

    In a contradiction, a child's probability is above .5 and its parent's is not.
    """
    images = found.groupby("run")["images"].first().sum()
    exceeding = found["exceeding"].sum()
    excess = (found["mean_excess"] * found["exceeding"]).sum()
    return {
        "contradictions / 100": f"{PER_IMAGES * found['contradictions'].sum() / images:.1f}",
        "child > parent / 100": f"{PER_IMAGES * exceeding / images:.1f}",
        "mean excess": tables.number(excess / exceeding if exceeding else np.nan),
        "largest excess": tables.number(found["largest_excess"].max()),
    }
