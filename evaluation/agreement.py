"""Measure the agreement of two readings of the same images: Cohen's kappa with intervals."""

import numpy as np
import pandas as pd

from evaluation import Names, bootstrap, metrics

CELLS = ("both", "first only", "second only", "neither")


def cells(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 for the cell of the 2x2 table that an image is in, else 0: (images, labels, cells).

    An image with NaN in either reading is in no cell.
    """
    first, second = metrics.checked(first, np.nan_to_num(second))[0], np.asarray(second, float)
    metrics.checked(second, np.nan_to_num(first))
    pairs = ((1, 1), (1, 0), (0, 1), (0, 0))
    each = [(first == one) & (second == other) for one, other in pairs]
    return np.stack(each, axis=-1).astype(float)


def kappa(counts: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa of 2x2 counts (..., 4): 1 is full agreement, 0 is that of chance.

    It is NaN if both readings give all images the same value, since chance then agrees fully.
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
    """Return one line per label: its 2x2 counts and kappa with its interval over patients."""
    each = cells(first, second)
    counts, draws = each.sum(axis=0), kappa(bootstrap.totals(each, patients, resamples, seed))
    ends = np.array([bootstrap.interval(column) for column in draws.T]).reshape(-1, 2)
    columns = dict(zip(CELLS, counts.T.astype(int), strict=True))
    frame = pd.DataFrame({"group": list(labels), **columns, "kappa": kappa(counts)})
    return frame.assign(low=ends[:, 0], high=ends[:, 1])
