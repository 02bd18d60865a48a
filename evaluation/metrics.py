"""Compute AUROC and average precision of many labels at once, and the averages the papers report.

Arrays are (images, labels). Targets are 0, 1 or NaN (unknown; left out of that label). Scores need
only be finite and ordered. A label of which one class is missing has the value NaN.

To add a metric, add one entry to METRICS: its form for one scoring and its form for a block of
bootstrap resamples. `score`, `bootstrap.scores` and every table read it from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from evaluation import EvaluationError

COLLAPSED = 0.01  # of the logit: odds that differ by less than 1 % from image to image


class Ranking(NamedTuple):
    """Where one label's positives rank among its negatives; one entry per positive, rising score.

    A score counts only where a positive has it, so two sorts and three look-ups are enough.
    """

    negatives_below: np.ndarray
    negatives_not_above: np.ndarray  # below, or with the same score
    true_alarms: np.ndarray  # positives at or above the score
    false_alarms: np.ndarray  # negatives at or above the score
    positives: int
    negatives: int


class WeightedRanking(NamedTuple):
    """`Ranking` for a block of resamples: arrays (scores, block), from the highest score down.

    A row belongs to one distinct score of the positives, and each image counts with its weight.
    """

    positives_here: np.ndarray  # positives with this score
    negatives_here: np.ndarray | None  # negatives with this score; None without ties
    true_alarms: np.ndarray  # positives at or above the score
    false_alarms: np.ndarray  # negatives at or above the score
    positives: np.ndarray  # (block,)
    negatives: np.ndarray  # (block,)


@dataclass(frozen=True)
class Metric:
    """A metric of one label that depends on the ranking of its images alone."""

    exact: Callable[[Ranking], float]
    weighted: Callable[[WeightedRanking], np.ndarray]  # (block,) values
    bounds: tuple[float, float] = (0.0, 1.0)


def _auc(ranking: Ranking) -> float:
    ordered_pairs = ranking.negatives_below.sum() + ranking.negatives_not_above.sum()
    return ordered_pairs / (2 * ranking.positives * ranking.negatives)  # a tie counts half


def _weighted_auc(ranking: WeightedRanking) -> np.ndarray:
    pairs = ranking.positives * ranking.negatives
    ordered = pairs - np.einsum("sb,sb->b", ranking.positives_here, ranking.false_alarms)
    if ranking.negatives_here is not None:
        ordered += np.einsum("sb,sb->b", ranking.positives_here, ranking.negatives_here) / 2
    return ordered / pairs


def _average_precision(ranking: Ranking) -> float:
    return np.mean(ranking.true_alarms / (ranking.true_alarms + ranking.false_alarms))


def _weighted_average_precision(ranking: WeightedRanking) -> np.ndarray:
    alarms = ranking.false_alarms + ranking.true_alarms
    np.maximum(alarms, 1, out=alarms)  # 0 only where nothing was drawn; adds nothing to the sum
    precision = np.divide(ranking.true_alarms, alarms, out=alarms)
    return np.einsum("sb,sb->b", ranking.positives_here, precision) / ranking.positives


METRICS = {
    "AUC": Metric(_auc, _weighted_auc),
    "AP": Metric(_average_precision, _weighted_average_precision),
}


class Scores(NamedTuple):
    """The metrics and counts of every label; arrays may have a leading axis of resamples."""

    values: dict[str, np.ndarray]  # name of the metric -> (..., labels)
    positives: np.ndarray  # (..., labels)
    negatives: np.ndarray  # (..., labels)
    images: np.ndarray  # (...,) also counts images without a known label

    @property
    def auc(self) -> np.ndarray:
        return self.values["AUC"]

    @property
    def ap(self) -> np.ndarray:
        return self.values["AP"]


def score(targets: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Return every metric and the counts of each label."""
    targets, probabilities = checked(targets, probabilities)
    by_label = [
        _score_label(np.sort(column[target == 1]), np.sort(column[target == 0]))
        for target, column in zip(targets.T, probabilities.T, strict=True)
    ]
    columns = np.array(by_label, float).reshape(-1, len(METRICS) + 2).T
    *values, positives, negatives = columns
    images = np.array(len(targets), float)
    return Scores(dict(zip(METRICS, values, strict=True)), positives, negatives, images)


def _score_label(positive: np.ndarray, negative: np.ndarray) -> list[float]:
    """Return every metric and both counts from the sorted scores of both classes."""
    counts = [len(positive), len(negative)]
    if not all(counts):
        return [np.nan] * len(METRICS) + counts
    below = np.searchsorted(negative, positive, "left")
    ranking = Ranking(
        negatives_below=below,
        negatives_not_above=np.searchsorted(negative, positive, "right"),
        true_alarms=len(positive) - np.searchsorted(positive, positive, "left"),
        false_alarms=len(negative) - below,
        positives=len(positive),
        negatives=len(negative),
    )
    return [float(metric.exact(ranking)) for metric in METRICS.values()] + counts


def auroc(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the exact area under the ROC curve of each label; ties count half."""
    return score(targets, probabilities).auc


def average_precision(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the mean precision at the scores of each label's positives, without interpolation."""
    return score(targets, probabilities).ap


def checked(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays that can be scored; raise EvaluationError if they cannot."""
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
            "targets must be 0, 1 or NaN; apply a policy for uncertain labels first"
        )
    return targets, probabilities


def roc_curve(target: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of false and true alarms at or above each distinct score, from (0, 0)."""
    known = ~np.isnan(target)
    thresholds, rank = np.unique(-score[known], return_inverse=True)
    alarms = (
        np.bincount(rank[target[known] == value], minlength=len(thresholds)) for value in (0, 1)
    )
    false, true = (np.concatenate([[0], np.cumsum(counts)]) for counts in alarms)
    return false, true


def operating_points(targets: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (1 - specificity, sensitivity) per label of a reader who decided 0 or 1."""
    false = np.where(targets == 0, decisions, np.nan)
    true = np.where(targets == 1, decisions, np.nan)
    return macro_mean(false.T), macro_mean(true.T)


def under_curve(
    targets: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray, flat: bool = True
) -> np.ndarray:
    """Return 1 where a reader's operating point lies below the model's ROC curve, else 0.

    `decisions` are (readers, images, labels), 0 or 1; the result is (readers, labels), NaN where
    there is no curve. A point is below if it lies strictly under the line through the curve's
    points. With `flat`, a point on a flat part of the curve is below too: a point of the curve has
    as many hits with fewer false alarms. Any other point on the curve counts 0. Integer counts are
    compared, so rounding has no influence.
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
            left = int(np.searchsorted(false, false_alarms, "right")) - 1  # last point there
            right = min(left + 1, len(false) - 1)
            width = max(false[right] - false[left], 1)  # 1 at the curve's end, which is flat
            rise = (false_alarms - false[left]) * (true[right] - true[left])
            beaten = flat and false[np.searchsorted(true, hits)] < false_alarms
            under[reader, label] = beaten or (hits - true[left]) * width < rise
    return under


def collapsed(probabilities: np.ndarray) -> bool:
    """Return True if a network gives nearly the same probabilities to all images, for every label.

    `probabilities` are (images, labels), or (members, images, labels), of which the mean is used.
    A network has collapsed if no label's logit varies by 0.01 or more (so the odds differ by less
    than 1 %), leaving out the lowest and the highest 1 % of the images. The small probabilities of
    a rare label are not a collapse, because they differ by factors.
    """
    probabilities = np.asarray(probabilities, float)
    mean = probabilities.reshape(-1, *probabilities.shape[-2:]).mean(axis=0)
    if len(mean) < 2:
        return False
    inside = np.clip(mean, 1e-15, 1 - 1e-15)  # the logit of 0 and 1 is infinite
    low, high = np.quantile(np.log(inside) - np.log1p(-inside), [0.01, 0.99], axis=0)
    return bool((high - low < COLLAPSED).all())


def macro_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the labels (last axis) that have a value; NaN if none has."""
    return weighted_mean(values, np.ones_like(values))


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean over the labels (last axis) that have a value; NaN if none has."""
    weights = np.where(np.isnan(values), 0, weights)
    total = weights.sum(axis=-1)
    summed = (np.nan_to_num(values) * weights).sum(axis=-1)
    return np.divide(summed, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def shares(targets: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return n_c / N of each label: its share of positive images, of all images."""
    return dict(zip(names, (np.asarray(targets) == 1).mean(axis=0).tolist(), strict=True))


def among(targets: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the targets with NaN for all but some images, given as (images,) bool."""
    if len(images) != len(targets):
        raise EvaluationError(f"a choice among {len(images)} images was given for {len(targets)}")
    return np.where(np.asarray(images)[:, None], targets, np.nan)


def diseased_negatives(targets: np.ndarray) -> np.ndarray:
    """Return the targets of Ge's D-AUC: negatives count only in images with another finding."""
    diseased = (targets == 1).any(axis=1, keepdims=True)
    return np.where((targets == 1) | diseased, targets, np.nan)


def normal_negatives(targets: np.ndarray) -> np.ndarray:
    """Return the targets of Ge's N-AUC: negatives count only where all labels are negative."""
    normal = (targets == 0).all(axis=1, keepdims=True)
    return np.where((targets == 1) | normal, targets, np.nan)


def normal_share(auc: np.ndarray, diseased: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the share of normal images among the negatives, (AUC - D) / (N - D).

    Each AUC is a mixture over both kinds of negatives, so the share reveals which split was scored:
    about .58 in a random patient split of ChestX-ray14, about .44 in its official test list.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.asarray(auc) - diseased) / (np.asarray(normal) - diseased)
    return np.where(np.isfinite(share), share, np.nan)


def actual_normal_share(targets: np.ndarray) -> np.ndarray:
    """Return the share of images without any finding among each label's negatives."""
    normal = (targets == 0).all(axis=1)
    negatives = (targets == 0).sum(axis=0)
    return np.divide(
        normal.sum(), negatives, out=np.full(len(negatives), np.nan), where=negatives > 0
    )


@dataclass(frozen=True)
class Group:
    """One average that a paper reports: its labels, its images and how they are weighted."""

    name: str
    labels: Sequence[str] | None = None  # None: all of them
    mean: Literal["macro", "positives", "shares", "sum of shares"] = "macro"
    negatives: Literal["all", "diseased", "normal"] = "all"
    given: str | None = None  # only images in which this label is positive
    images: np.ndarray | None = field(default=None, compare=False)  # (images,) bool: only these
    conditional: bool = False  # score by P(label | given) instead of P(label)
    metrics: Sequence[str] = tuple(METRICS)
    shares: Mapping[str, float] = field(default_factory=dict, hash=False)  # constant weights

    def value(self, scores: Scores, names: Sequence[str], metric: str) -> np.ndarray:
        """Return the group's average of a metric: a scalar, or one value per resample.

        A sum is NaN if any label has no value: leaving a label out would lower it.
        """
        columns = self.columns(names)
        values = scores.values[metric][..., columns]
        if self.mean == "macro":
            return macro_mean(values)
        if self.mean == "positives":
            return weighted_mean(values, scores.positives[..., columns])
        weights = np.array([self.shares[names[column]] for column in columns])
        if self.mean == "shares":
            return weighted_mean(values, weights)
        return (values * weights).sum(axis=-1)

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return the indices of the group's labels, without the label it is conditioned on."""
        wanted = tuple(names) if self.labels is None else tuple(self.labels)
        condition = [] if self.given is None else [self.given]
        missing = sorted({*wanted, *condition} - {*names})
        if missing:
            raise EvaluationError(f"group {self.name!r} needs {missing}, which are not predicted")
        return [list(names).index(name) for name in wanted if name != self.given]

    @property
    def view(self) -> tuple:
        """Return the key of what is scored; groups with equal keys share one scoring."""
        images = None if self.images is None else self.images.tobytes()
        return self.given, images, self.conditional, self.negatives

    def arrays(self, targets: np.ndarray, probabilities: np.ndarray, names: list[str]) -> tuple:
        """Return targets and scores restricted to the group's images and negatives."""
        restrict = {"diseased": diseased_negatives, "normal": normal_negatives}
        if self.negatives != "all":
            targets = restrict[self.negatives](targets)
        if self.images is not None:
            targets = among(targets, self.images)
        if self.given is not None:
            condition = names.index(self.given)
            targets = among(targets, targets[:, condition] == 1)
            if self.conditional:
                probabilities = conditioned(probabilities, condition)
        return targets, probabilities


def conditioned(probabilities: np.ndarray, label: int) -> np.ndarray:
    """Return P(each label | `label`), where every label implies `label`; 0 where it is 0/0."""
    probabilities = np.asarray(probabilities, float)
    condition = probabilities[:, [label]]
    return np.divide(
        probabilities, condition, out=np.zeros_like(probabilities), where=condition > 0
    )


# The groups that the five papers report; the caller names leaf and high-level labels.
MEAN = (Group("mean"),)
ASADI = (Group("mean"), Group("weighted mean", mean="positives"))


def ge(shares: Mapping[str, float]) -> tuple[Group, ...]:
    """Return Ge's groups. W is the sum of (n_c / N) AUC_c, not divided by the sum of n_c / N.

    `shares` are n_c / N in the whole dataset, of which the scored images are a part.
    """
    auc = ("AUC",)
    return (
        Group("mean", metrics=auc),
        Group("W", mean="sum of shares", metrics=auc, shares=shares),
        Group("W normalised", mean="shares", metrics=auc, shares=shares),
        Group("D", negatives="diseased", metrics=auc),
        Group("N", negatives="normal", metrics=auc),
    )


def chen(leaves: Sequence[str], inner: Sequence[str], root: str = "Abnormal") -> tuple[Group, ...]:
    """Return Chen's groups: three averages, and the conditional reading of the last one."""
    return (
        Group("leaf", leaves),
        Group("high-level", inner),
        Group(f"leaf given {root}", leaves, given=root),
        Group(f"leaf given {root} (conditional score)", leaves, given=root, conditional=True),
    )
