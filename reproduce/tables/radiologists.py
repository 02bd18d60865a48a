"""Radiologists' operating points beside a model's ROC curves (Pham 2019, section 4.6)."""

import numpy as np
import pandas as pd

from evaluation import bootstrap, metrics, tables
from evaluation.predictions import Predictions

BELOW = "radiologists below the curve"


def below_curve(
    found: Predictions, decisions: dict[str, np.ndarray], resamples: int, seed: int
) -> pd.DataFrame:
    """How many radiologists' operating points lie below the ROC curve, per label and on average.

    `decisions` are 0/1 arrays like the targets, by radiologist.
    """
    decided = np.stack([*decisions.values()])

    def count(images: np.ndarray) -> np.ndarray:
        arrays = found.targets[images], found.mean[images], decided[:, images]
        below = metrics.under_curve(*arrays).sum(axis=0)
        return np.append(below, metrics.macro_mean(below))

    draws = bootstrap.each(count, found.patients, resamples, seed)
    value = count(np.arange(len(found.targets)))
    groups = [*found.labels, "mean"]
    measured = pd.DataFrame({"group": groups, "metric": BELOW, "value": value})
    return bootstrap.with_intervals(measured, draws.T)


def one_line_each(table: pd.DataFrame) -> pd.DataFrame:
    """A table of values as one line a label or group, with a column a metric, for people."""
    cells = [
        tables.interval(
            *cell[["value", "low", "high"]], decimals=1 if cell["metric"] == BELOW else 4
        )
        for _, cell in table.iterrows()
    ]
    cells = table.assign(cell=cells).pivot(index="group", columns="metric", values="cell")
    scored = table[table["metric"] == "AUC"].set_index("group")
    cells = cells.reindex(index=scored.index, columns=table["metric"].unique()).fillna("")
    counts = scored[["positives", "images"]].astype(int)
    return cells.join(counts).rename_axis(index=None, columns=None)
