"""Exact AUROC and average precision for many labels at once, and the groups the papers average.

Arrays are (images, labels): targets 0, 1 or NaN (unknown, left out of that label), and scores
that need only be finite and ordered. A label with one class only has no AUC and no AP: NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from evaluation import EvaluationError

METRICS = ("AUC", "AP")
COLLAPSED = 0.01  # of the logit: odds that differ by less than 1 % from image to image
ANY = "any label"  # as a group's condition: images in which at least one label is positive


class Scores(NamedTuple):
    """What the groups are made of; arrays may have a leading axis of bootstrap resamples."""

    auc: np.ndarray  # (..., labels)
    ap: np.ndarray  # (..., labels)
    positives: np.ndarray  # (..., labels)
    negatives: np.ndarray  # (..., labels)
    images: np.ndarray  # (...,) also counts images without a known label

    def metric(self, name: str) -> np.ndarray:
        return {"AUC": self.auc, "AP": self.ap}[name]


def score(targets: np.ndarray, probabilities: np.ndarray) -> Scores:
    """AUC, AP and counts of every label."""
    targets, probabilities = checked(targets, probabilities)
    # A score counts only where a positive has it, so two sorts and three look-ups are enough.
    by_label = [
        _score_label(np.sort(column[target == 1]), np.sort(column[target == 0]))
        for target, column in zip(targets.T, probabilities.T, strict=True)
    ]
    auc, ap, positives, negatives = np.array(by_label, float).reshape(-1, 4).T
    return Scores(auc, ap, positives, negatives, np.array(len(targets), float))


def _score_label(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float, int, int]:
    """AUC, AP and counts from the sorted scores of both classes."""
    if not len(positive) or not len(negative):
        return np.nan, np.nan, len(positive), len(negative)
    below = np.searchsorted(negative, positive, "left")  # negatives under each positive
    not_above = np.searchsorted(negative, positive, "right")
    auc = (below.sum() + not_above.sum()) / (2 * len(positive) * len(negative))  # a tie is half
    true = len(positive) - np.searchsorted(positive, positive, "left")  # positives at or above
    false = len(negative) - below
    return float(auc), float(np.mean(true / (true + false))), len(positive), len(negative)


def auroc(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The exact area under the ROC curve of each label, ties counted half."""
    return score(targets, probabilities).auc


def average_precision(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The mean over a label's positives of the precision at their score (no interpolation)."""
    return score(targets, probabilities).ap


def checked(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays that can be scored, or an EvaluationError."""
    targets, probabilities = np.asarray(targets), np.asarray(probabilities)
    if targets.ndim != 2 or targets.shape != probabilities.shape:
        raise EvaluationError(
            "targets and probabilities must both be (images, labels), but they are "
            f"{targets.shape} and {probabilities.shape}; average ensemble members first"
        )
    if not np.isfinite(probabilities).all():
        image, label = np.argwhere(~np.isfinite(probabilities))[0]
        raise EvaluationError(
            f"{(~np.isfinite(probabilities)).sum()} probabilities are NaN or infinite, the first "
            f"in row {image}, column {label}; leave those images out or predict them again"
        )
    if not ((targets == 0) | (targets == 1) | np.isnan(targets)).all():
        raise EvaluationError(
            "targets to score against must be 0, 1 or NaN; settle uncertain labels first"
        )
    return targets, probabilities


def roc_curve(target: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of false and true alarms at or above each distinct score, from (0, 0) upwards."""
    known = ~np.isnan(target)
    thresholds, rank = np.unique(-score[known], return_inverse=True)
    alarms = (
        np.bincount(rank[target[known] == value], minlength=len(thresholds)) for value in (0, 1)
    )
    false, true = (np.concatenate([[0], np.cumsum(counts)]) for counts in alarms)
    return false, true


def operating_points(targets: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each label's (1 - specificity, sensitivity) of a reader who decided 0 or 1."""
    false = np.where(targets == 0, decisions, np.nan)
    true = np.where(targets == 1, decisions, np.nan)
    return macro_mean(false.T), macro_mean(true.T)


def under_curve(
    targets: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray
) -> np.ndarray:
    """1 where a reader's operating point lies below the model's ROC curve: (readers, labels).

    `decisions` are (readers, images, labels), 0 or 1. Below means strictly under the line through
    the curve's points, or beaten by one of them: as many hits with fewer false alarms. So a point
    that the model only equals counts 0, as does one above; NaN where there is no curve. Whole
    counts are compared: no rounding decides.
    """
    targets, probabilities = checked(targets, probabilities)
    for reader_decisions in decisions:
        checked(targets, reader_decisions)
    under = np.full((len(decisions), targets.shape[1]), np.nan)
    for label, (target, score) in enumerate(zip(targets.T, probabilities.T, strict=True)):
        false, true = roc_curve(target, score)
        if not false[-1] or not true[-1]:
            continue
        for reader, decision in enumerate(decisions[..., label]):
            false_alarms, hits = (int(decision[target == value].sum()) for value in (0, 1))
            left = int(np.searchsorted(false, false_alarms, "right")) - 1  # the highest point there
            right = min(left + 1, len(false) - 1)
            width = max(false[right] - false[left], 1)  # 1 at the curve's end, which is flat
            rise = (false_alarms - false[left]) * (true[right] - true[left])
            beaten = false[np.searchsorted(true, hits)] < false_alarms
            under[reader, label] = beaten or (hits - true[left]) * width < rise
    return under


def collapsed(probabilities: np.ndarray) -> bool:
    """Whether a network gives (nearly) every image the same probabilities, for every label.

    `probabilities` are (images, labels), or (members, images, labels) of which the mean counts.
    Nearly: leaving out the lowest and the highest 1 % of the images, no label's logit varies by
    0.01 or more, so that the odds differ by less than 1 %. A rare label's small probabilities
    are not a collapse: they differ by factors.
    """
    probabilities = np.asarray(probabilities, float)
    mean = probabilities.reshape(-1, *probabilities.shape[-2:]).mean(axis=0)
    if len(mean) < 2:
        return False
    inside = np.clip(mean, 1e-15, 1 - 1e-15)  # the logit of 0 and 1 is infinite
    low, high = np.quantile(np.log(inside) - np.log1p(-inside), [0.01, 0.99], axis=0)
    return bool((high - low < COLLAPSED).all())


def macro_mean(values: np.ndarray) -> np.ndarray:
    """The mean over labels (last axis) that have a value; NaN where none has."""
    return weighted_mean(values, np.ones_like(values))


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean over labels (last axis) that have a value; NaN where none has."""
    weights = np.where(np.isnan(values), 0, weights)
    total = weights.sum(axis=-1)
    summed = (np.nan_to_num(values) * weights).sum(axis=-1)
    return np.divide(summed, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def prevalence_sum(values: np.ndarray, positives: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Ge's W-AUC as printed: sum of (n_c / N) AUC_c, not normalised, so at most the sum of n_c/N.

    NaN where any label has no value: leaving one out would lower a sum, unlike a mean.
    """
    return (values * positives).sum(axis=-1) / images


def given(targets: np.ndarray, label: int | slice) -> np.ndarray:
    """Targets of the images in which `label`, or one of them, is positive; all others unknown."""
    positive = (targets[:, np.atleast_1d(np.arange(targets.shape[1])[label])] == 1).any(axis=1)
    return np.where(positive[:, None], targets, np.nan)


def diseased_negatives(targets: np.ndarray) -> np.ndarray:
    """Ge's D: a negative counts only in images with another finding."""
    diseased = (targets == 1).any(axis=1, keepdims=True)
    return np.where((targets == 1) | diseased, targets, np.nan)


def normal_negatives(targets: np.ndarray) -> np.ndarray:
    """Ge's N: a negative counts only in images where every label is known to be negative."""
    normal = (targets == 0).all(axis=1, keepdims=True)
    return np.where((targets == 1) | normal, targets, np.nan)


def normal_share(auc: np.ndarray, diseased: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The share of normal images among negatives that AUC, D-AUC and N-AUC imply: (AUC-D)/(N-D).

    Each AUC is a mixture over both kinds of negatives, so this reveals which split was scored:
    about .58 in a random patient split of ChestX-ray14, about .44 in its official test list.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.asarray(auc) - diseased) / (np.asarray(normal) - diseased)
    return np.where(np.isfinite(share), share, np.nan)


def actual_normal_share(targets: np.ndarray) -> np.ndarray:
    """The share of images without any finding among each label's negatives."""
    normal = (targets == 0).all(axis=1)
    negatives = (targets == 0).sum(axis=0)
    return np.divide(
        normal.sum(), negatives, out=np.full(len(negatives), np.nan), where=negatives > 0
    )


@dataclass(frozen=True)
class Group:
    """One averaged number of a paper: which labels, which images, and how they are weighted."""

    name: str
    labels: Sequence[str] | None = None  # None: all of them
    mean: Literal["macro", "positives", "prevalence sum"] = "macro"
    negatives: Literal["all", "diseased", "normal"] = "all"
    given: str | None = None  # only images in which this label, or ANY, is positive
    conditional: bool = False  # score by P(label | given) instead of P(label)
    metrics: Sequence[str] = METRICS

    def value(self, scores: Scores, names: Sequence[str], metric: str) -> np.ndarray:
        """The group's number, for one scoring (a scalar) or for every resample."""
        columns = self.columns(names)
        values, positives = scores.metric(metric)[..., columns], scores.positives[..., columns]
        if self.mean == "prevalence sum":
            return prevalence_sum(values, positives, scores.images)
        return macro_mean(values) if self.mean == "macro" else weighted_mean(values, positives)

    def columns(self, names: Sequence[str]) -> list[int]:
        """The indices of the group's labels, without the one it is conditioned upon."""
        wanted = tuple(names) if self.labels is None else tuple(self.labels)
        condition = [self.given] if self.given not in (None, ANY) else []
        missing = sorted({*wanted, *condition} - {*names})
        if missing:
            raise EvaluationError(f"group {self.name!r} needs {missing}, which are not predicted")
        return [list(names).index(name) for name in wanted if name != self.given]

    @property
    def view(self) -> tuple:
        """What is scored; groups with equal views share one scoring."""
        return self.given, self.conditional, self.negatives

    def arrays(self, targets: np.ndarray, probabilities: np.ndarray, names: list[str]) -> tuple:
        """The targets and scores that the group's images and negatives leave."""
        restrict = {"diseased": diseased_negatives, "normal": normal_negatives}
        if self.negatives != "all":
            targets = restrict[self.negatives](targets)
        if self.given is not None:
            every = slice(None)
            targets = given(targets, every if self.given == ANY else names.index(self.given))
            if self.conditional:
                probabilities = conditioned(probabilities, names.index(self.given))
        return targets, probabilities


def conditioned(probabilities: np.ndarray, label: int) -> np.ndarray:
    """P(each label | `label`) where all of them imply `label`: their ratio, 0 where it is 0/0."""
    probabilities = np.asarray(probabilities, float)
    condition = probabilities[:, [label]]
    return np.divide(
        probabilities, condition, out=np.zeros_like(probabilities), where=condition > 0
    )


# The groups that the five papers report; the caller names leaf and high-level labels.
MEAN = (Group("mean"),)
ASADI = (Group("mean"), Group("weighted mean", mean="positives"))
GE = (
    Group("mean", metrics=("AUC",)),
    Group("W", mean="prevalence sum", metrics=("AUC",)),
    Group("W normalised", mean="positives", metrics=("AUC",)),
    Group("D", negatives="diseased", metrics=("AUC",)),
    Group("N", negatives="normal", metrics=("AUC",)),
)


def chen(leaves: Sequence[str], inner: Sequence[str], root: str = "Abnormal") -> tuple[Group, ...]:
    """Chen's four columns, and the conditional reading of the last."""
    return (
        Group("leaf", leaves),
        Group("high-level", inner),
        Group(f"leaf given {root}", leaves, given=root),
        Group(f"leaf given {root} (conditional score)", leaves, given=root, conditional=True),
    )
