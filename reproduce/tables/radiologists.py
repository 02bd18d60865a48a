"""Compare radiologists with a model: operating points and AUC (Pham 2019, §4.6).

`decisions` are 0/1 arrays of the shape of the targets, by radiologist.
"""

import numpy as np
import pandas as pd

from evaluation import bootstrap, metrics, tables
from evaluation.predictions import Predictions

BELOW = "radiologists below the curve"
WITHOUT_FLAT = "if points on a flat part of the curve do not count"
AUC_OF = "AUC of "  # begins the metric of a radiologist's own AUC
AUC_NOTE = (
    "A radiologist decides yes or no, which is one operating point: the AUC is the area under its "
    "two segments, from (0, 0) to the point to (1, 1), the mean of sensitivity and specificity."
)


def below_curve(
    predictions: Predictions, decisions: dict[str, np.ndarray], resamples: int, seed: int
) -> pd.DataFrame:
    """Count the radiologists whose operating point lies below the ROC curve, per label and mean.

    A point on a flat part of the curve counts; the note of the mean is the mean without that.
    """
    decided = np.stack([*decisions.values()])

    def count(images: np.ndarray, flat: bool = True) -> np.ndarray:
        arrays = predictions.targets[images], predictions.mean[images], decided[:, images]
        below = metrics.under_curve(*arrays, flat).sum(axis=0)
        return np.append(below, metrics.macro_mean(below))

    draws = bootstrap.each(count, predictions.patients, resamples, seed)
    every = np.arange(len(predictions.targets))
    strictly = tables.number(count(every, flat=False)[-1], 2)
    measured = pd.DataFrame(
        {
            "group": [*predictions.labels, "mean"],
            "metric": BELOW,
            "value": count(every),
            "note": [*[""] * len(predictions.labels), f"{strictly} {WITHOUT_FLAT}"],
        }
    )
    return bootstrap.with_intervals(measured, draws.T)


def auc_of_each(
    predictions: Predictions, decisions: dict[str, np.ndarray], resamples: int, seed: int
) -> pd.DataFrame:
    """Return each radiologist's AUC per label and on average, from one point (see `AUC_NOTE`).

    A label with one class only has no AUC and is left out of the mean.
    """
    decided = np.stack([*decisions.values()])

    def areas(images: np.ndarray) -> np.ndarray:
        points = [
            metrics.operating_points(predictions.targets[images], each[images]) for each in decided
        ]
        by_label = np.array([(1 + sensitivity - alarms) / 2 for alarms, sensitivity in points])
        return np.column_stack([by_label, metrics.macro_mean(by_label)]).ravel()

    draws = bootstrap.each(areas, predictions.patients, resamples, seed)
    groups = [*predictions.labels, "mean"]
    measured = pd.DataFrame(
        {
            "group": groups * len(decisions),
            "metric": np.repeat([AUC_OF + name for name in decisions], len(groups)),
            "value": areas(np.arange(len(predictions.targets))),
        }
    )
    return bootstrap.with_intervals(measured, draws.T)


def one_line_each(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for people: one row per label or group, one column per metric."""
    cells = [
        tables.with_interval(cell.value, cell.low, cell.high, 1 if cell.metric == BELOW else 4)
        for cell in table.itertuples()
    ]
    cells = table.assign(cell=cells).pivot(index="group", columns="metric", values="cell")
    scored = table[table["metric"] == "AUC"].set_index("group")
    cells = cells.reindex(index=scored.index, columns=table["metric"].unique()).fillna("")
    counts = scored[["positives", "images"]].astype(int)
    return cells.join(counts).rename_axis(index=None, columns=None)
