"""Detect predictions that belong to other rows of the truth than the ids they are stored with.

A file that was shifted by some rows, or written for another list of images, has a mean AUC near .5
on the images that it names and a high one on others. The search takes the truth file and each known
list of images. For each it finds the row offset with the highest cross-correlation of predictions
and labels, by Fourier transform, and computes the mean AUC there.
"""

from typing import NamedTuple

import numpy as np

from evaluation import metrics
from reproduce.rescore import lists

FITS = 0.7  # a mean AUC above which no other list is searched
BETTER = 0.03  # by how much the mean AUC of another place of the rows must be higher
FEWEST_ROWS = 200
DEVIATIONS = 6  # above .5, so that the best of 100,000 offsets is not chance
NO_FIT = 0.55
OWN_ROWS = "the images that they name"


class Fit(NamedTuple):
    """How well the predictions fit a list of images at its best offset."""

    name: str  # of the list
    targets: np.ndarray  # (images, labels) of the whole list
    offset: int  # row of the list that the first prediction belongs to
    images: int  # rows that the predictions and the list share at this offset
    auc: float


def sentence(
    scores: np.ndarray, claimed: np.ndarray, ids: list[str], whole: np.ndarray | None = None
) -> str:
    """Say how the rows of a predictions file are misplaced; return "" if they are not.

    Args:
        scores: (images, labels) in the order of the predictions file.
        claimed: targets of the images that the predictions name, in the same order.
        ids: the ids of the whole truth file.
        whole: targets of the whole truth file.
    """
    if len(scores) < FEWEST_ROWS:
        return ""
    here = _mean_auc(claimed, scores)
    fits = [_best_offset(scores, OWN_ROWS, claimed)]
    if not here >= FITS and whole is not None:
        fits += [_best_offset(scores, name, whole[rows]) for name, rows in _lists_of(ids)]
    best = max(fits, key=lambda fit: -1.0 if np.isnan(fit.auc) else fit.auc)
    moved = best is not fits[0] or best.offset != 0
    if moved and best.auc > here + BETTER and _beyond_chance(best):
        return (
            f"these predictions fit {_where(best)} (mean AUC {best.auc:.3f} on {best.images:,} "
            f"images) better than {OWN_ROWS} ({here:.3f}): the rows are shifted or of another "
            "list, so write each prediction beside its own image"
        )
    if here < NO_FIT:
        return (
            f"these predictions fit neither {OWN_ROWS} (mean AUC {here:.3f}) nor any known list at "
            "any row offset: the rows may be shuffled, or the network untrained"
        )
    return ""


def _where(fit: Fit) -> str:
    if fit.name == OWN_ROWS:
        way = "after" if fit.offset > 0 else "before"
        rows = "row" if abs(fit.offset) == 1 else "rows"
        return f"the images {abs(fit.offset):,} {rows} {way} the ones that they name"
    if fit.images == len(fit.targets):
        return f"{fit.name}, in the order of the label file,"
    if fit.offset == 0:
        return f"the first {fit.images:,} rows of {fit.name}"
    return f"{fit.images:,} rows of {fit.name} from row {max(fit.offset, 0) + 1:,} on"


def _lists_of(ids: list[str]) -> list[tuple[str, np.ndarray]]:
    """Return the truth file and each known list inside it, by name, as masks of its rows."""
    candidates = [("the label file", np.ones(len(ids), bool))]
    patients = lists.patients(ids)
    if patients is not None:
        for image_list in lists.known_lists():
            inside = image_list.contains(patients)
            if FEWEST_ROWS <= inside.sum() < len(ids):
                candidates.append((image_list.name, inside))
    return candidates


def _best_offset(scores: np.ndarray, name: str, targets: np.ndarray) -> Fit:
    """Find the offset with the highest correlation where at least half of the rows overlap."""
    count, length = len(scores), len(targets)
    ranks = scores.argsort(axis=0).argsort(axis=0) / count - 0.5
    known = np.where(np.isnan(targets), np.nanmean(targets, axis=0), targets)
    centred = np.nan_to_num(known - known.mean(axis=0))
    deviation = centred.std(axis=0)
    centred = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    size = 1 << (count + length - 1).bit_length()  # long enough that no row wraps around
    spectrum = np.fft.rfft(ranks, size, axis=0).conj() * np.fft.rfft(centred, size, axis=0)
    correlation = np.fft.irfft(spectrum.sum(axis=1), size)
    half = min(count, length) // 2
    offsets = np.arange(-(count - half), length - half + 1)
    offset = int(offsets[correlation[offsets % size].argmax()])
    first, last = max(0, -offset), min(count, length - offset)
    auc = _mean_auc(targets[first + offset : last + offset], scores[first:last])
    return Fit(name, targets, offset, last - first, auc)


def _mean_auc(targets: np.ndarray, scores: np.ndarray) -> float:
    return float(metrics.macro_mean(metrics.auroc(targets, scores)))


def _beyond_chance(fit: Fit) -> bool:
    """Return if the mean AUC is too high for the best of many offsets of a useless file."""
    fewest = np.minimum((fit.targets == 1).sum(axis=0), (fit.targets == 0).sum(axis=0))
    variance = 1 / (12 * fewest[fewest > 0])  # of an AUC of .5, from the smaller class
    deviation = np.sqrt(variance.sum()) / max(len(variance), 1)
    return fit.auc - 0.5 > DEVIATIONS * deviation
