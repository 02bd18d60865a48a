"""Looks for predictions that fit other rows of the truth than the ones that they are labelled with.

A file that was shifted by some rows, or written for another list, has an AUC near .5 on the images
that it names and a high one on others. The search takes known lists of images and every row offset:
the cross-correlation of predictions and labels, by Fourier transform, finds the best offset of a
list at once, and the AUC there decides.
"""

from typing import NamedTuple

import numpy as np

from evaluation import metrics
from reproduce.rescore import lists

FITS = 0.7  # mean AUC from which predictions are taken to fit the images that they name
BETTER = 0.03  # of mean AUC, before another place of the rows is believed
FEWEST_ROWS = 200
DEVIATIONS = 6  # above .5, so that the best of 100,000 offsets is not chance
NO_FIT = 0.55


class Rows(NamedTuple):
    """Truth in the order of some list."""

    name: str
    targets: np.ndarray  # (images, labels)


class Fit(NamedTuple):
    rows: Rows
    offset: int  # row of the list that the first prediction belongs to
    images: int  # rows that both have
    auc: float


def sentence(
    scores: np.ndarray, claimed: np.ndarray, ids: list[str], whole: np.ndarray | None = None
) -> str:
    """What is wrong with the rows of a file, or an empty text.

    `scores` and `claimed` targets are (images, labels) in the order of the predictions file, `ids`
    are those of the whole truth file in its order, with its targets `whole`.
    """
    if len(scores) < FEWEST_ROWS:
        return ""
    here = _mean_auc(claimed, scores)
    fits = [_best_offset(scores, Rows("the images that it names", claimed))]
    if not here >= FITS and whole is not None:
        fits += [_best_offset(scores, rows) for rows in _lists_of(ids, whole)]
    best = max(fits, key=lambda fit: -1.0 if np.isnan(fit.auc) else fit.auc)
    moved = best is not fits[0] or best.offset != 0
    if moved and best.auc > here + BETTER and _beyond_chance(best):
        return (
            f"these predictions fit {_place(best)} (mean AUC {best.auc:.3f} on {best.images:,} "
            f"images) better than the images that they name ({here:.3f}): the rows are shifted or "
            "of another list, so write each prediction beside its own image"
        )
    if here < NO_FIT:
        return (
            f"these predictions fit neither the images that they name (mean AUC {here:.3f}) nor "
            "any known list at any row offset: the rows may be shuffled, or the network untrained"
        )
    return ""


def _place(fit: Fit) -> str:
    if fit.rows.name == "the images that it names":
        way = "after" if fit.offset > 0 else "before"
        rows = "row" if abs(fit.offset) == 1 else "rows"
        return f"the images {abs(fit.offset):,} {rows} {way} the ones that they name"
    if fit.images == len(fit.rows.targets):
        return f"{fit.rows.name}, in the order of the label file,"
    if fit.offset == 0:
        return f"the first {fit.images:,} rows of {fit.rows.name}"
    return f"{fit.images:,} rows of {fit.rows.name} from row {max(fit.offset, 0) + 1:,} on"


def _lists_of(ids: list[str], whole: np.ndarray) -> list[Rows]:
    """The truth file in its own order, and each known list that lies in it, in that order."""
    found = [Rows("the label file", whole)]
    of = lists.patients(ids)
    if of is None:
        return found
    for image_list in lists.known_lists():
        inside = lists.member(image_list, of)
        if FEWEST_ROWS <= inside.sum() < len(ids):
            found.append(Rows(image_list.name, whole[inside]))
    return found


def _best_offset(scores: np.ndarray, rows: Rows) -> Fit:
    """The offset at which predictions and labels correlate most, at least half of them shared."""
    count, length = len(scores), len(rows.targets)
    ranks = scores.argsort(axis=0).argsort(axis=0) / count - 0.5
    known = np.where(np.isnan(rows.targets), np.nanmean(rows.targets, axis=0), rows.targets)
    centred = np.nan_to_num(known - known.mean(axis=0))
    deviation = centred.std(axis=0)
    centred = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    size = 1 << (count + length - 1).bit_length()  # so that no row meets another by wrapping
    spectrum = np.zeros(size // 2 + 1, complex)
    for label in range(scores.shape[1]):
        spectrum += np.conj(np.fft.rfft(ranks[:, label], size)) * np.fft.rfft(
            centred[:, label], size
        )
    correlation = np.fft.irfft(spectrum, size)
    half = min(count, length) // 2
    offsets = np.arange(-(count - half), length - half + 1)
    offset = int(offsets[correlation[offsets % size].argmax()])
    first, last = max(0, -offset), min(count, length - offset)
    shared = rows.targets[first + offset : last + offset], scores[first:last]
    return Fit(Rows(rows.name, rows.targets), offset, last - first, _mean_auc(*shared))


def _mean_auc(targets: np.ndarray, scores: np.ndarray) -> float:
    return float(metrics.macro_mean(metrics.auroc(targets, scores)))


def _beyond_chance(fit: Fit) -> bool:
    """Whether a mean AUC is too far above .5 for the best of many offsets of a useless file."""
    aligned = metrics.score(fit.rows.targets, np.zeros_like(fit.rows.targets))
    fewest = np.minimum(aligned.positives, aligned.negatives)
    variance = 1 / (12 * fewest[fewest > 0])  # of an AUC of .5, from the smaller class
    deviation = np.sqrt(variance.sum()) / max(len(variance), 1)
    return fit.auc - 0.5 > DEVIATIONS * deviation
