"""How far two readings of the same images agree: Cohen's kappa with intervals over patients."""

import numpy as np
import pandas as pd

from evaluation import Names, bootstrap, metrics

CELLS = ("both", "first only", "second only", "neither")


def cells(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """0 or 1 for each image, label and cell of the 2x2 table (images, labels, cells).

    Images that either reading leaves open (NaN) are in no cell.
    """
    first, second = metrics.checked(first, np.nan_to_num(second))[0], np.asarray(second, float)
    metrics.checked(second, np.nan_to_num(first))
    pairs = ((1, 1), (1, 0), (0, 1), (0, 0))
    each = [(first == one) & (second == other) for one, other in pairs]
    return np.stack(each, axis=-1).astype(float)


def kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa of 2x2 counts (..., 4): 1 is full agreement, 0 that of chance.

    NaN where chance alone agrees fully: both readings call every image the same.
    """
    both, first, second, neither = np.moveaxis(np.asarray(counts, float), -1, 0)
    images = both + first + second + neither
    # expected and observed agreement, times images²
    expected = (both + first) * (both + second) + (neither + first) * (neither + second)
    rest = images**2 - expected
    above_chance = (both + neither) * images - expected
    return np.divide(above_chance, rest, out=np.full(np.shape(rest), np.nan), where=rest > 0)


def table(
    first: np.ndarray,
    second: np.ndarray,
    labels: Names,
    patients: Names | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each label's 2x2 counts and kappa with its interval."""
    each = cells(first, second)
    counts, draws = each.sum(axis=0), kappa(bootstrap.totals(each, patients, resamples, seed))
    ends = np.array([bootstrap.interval(column) for column in draws.T]).reshape(-1, 2)
    columns = dict(zip(CELLS, counts.T.astype(int), strict=True))
    frame = pd.DataFrame({"group": list(labels), **columns, "kappa": kappa(counts)})
    return frame.assign(low=ends[:, 0], high=ends[:, 1])
