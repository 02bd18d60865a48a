"""Confidence intervals by resampling patients, and paired differences between two models.

Every patient is drawn with replacement, with all of his images. Scores are sorted once: a resample
only changes how often each patient counts, so a block of resamples is one sparse product that sums
patients' weights per rank, and AUC and AP follow from cumulative sums (ties included, exactly).
The draws depend on (patients, resamples, seed) alone, so two models scored with the same ones are
paired.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from evaluation import EvaluationError, Names, metrics
from evaluation.metrics import Group, Scores

LEVEL = 0.95
BLOCK = 16  # resamples at once: their weights of one patient fill a cache line or two


def scores(
    targets: np.ndarray,
    probabilities: np.ndarray,
    patients: Names | None = None,
    resamples: int = 1000,
    seed: int = 0,
    block: int = BLOCK,
) -> Scores:
    """`metrics.score` of every resample, arrays (resamples, labels); None: image = patient."""
    targets, probabilities = metrics.checked(targets, probabilities)
    patient = _patient_index(patients, len(targets))
    ranks = [
        _ranks(target, column, patient)
        for target, column in zip(targets.T, probabilities.T, strict=True)
    ]
    images_of, by_block = np.bincount(patient), []
    for weights in _weights(patient, resamples, seed, block):  # (patients, block)
        by_label = [_score_label(label_ranks, weights) for label_ranks in ranks]
        by_block.append((*np.moveaxis(np.array(by_label), 0, -1), images_of @ weights))
    return Scores(*(np.concatenate(parts) for parts in zip(*by_block, strict=True)))


def each(
    statistic: Callable[[np.ndarray], np.ndarray],
    patients: Names,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Any statistic of image row numbers, for the same draws as `scores`: (resamples, ...)."""
    patient = _patient_index(patients, len(patients))
    every = np.arange(len(patient))
    drawn = (
        column for weights in _weights(patient, resamples, seed, BLOCK) for column in weights.T
    )
    return np.array([statistic(np.repeat(every, counts[patient].astype(int))) for counts in drawn])


def totals(
    values: np.ndarray, patients: Names | None = None, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums over the images (first axis) of every resample, for the same draws as `scores`."""
    values = np.asarray(values, float)
    patient = _patient_index(patients, len(values))
    by_patient = np.zeros((int(patient.max()) + 1, int(np.prod(values.shape[1:]))))
    np.add.at(by_patient, patient, values.reshape(len(values), -1))
    drawn = [weights.T @ by_patient for weights in _weights(patient, resamples, seed, BLOCK)]
    return np.concatenate(drawn).reshape(resamples, *values.shape[1:])


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of the resamples (first axis) that have a value; else NaN."""
    known = np.asarray(values)[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    return tuple(np.quantile(known, [(1 - level) / 2, (1 + level) / 2]))


def table(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Names,
    patients: Names | None = None,
    groups: Sequence[Group] = metrics.MEAN,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every label and group with its interval: group, metric, value, low, high and counts."""
    measured = measure(
        targets, probabilities, labels, patients, groups, resamples=resamples, seed=seed
    )
    return with_intervals(*measured)


def measure(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Names,
    patients: Names | None = None,
    groups: Sequence[Group] = metrics.MEAN,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, np.ndarray]:
    """`table` without its intervals, and the resampled values of its rows: (rows, resamples)."""
    scored = _Scored(targets, probabilities, labels, patients, resamples, seed)
    rows, resampled = [], []
    for group, metric in _rows(labels, groups):
        value, draws = scored.value(group, metric)
        row = {"group": group.name, "metric": metric, "value": value}
        rows.append(row | scored.counts(group) | {"note": scored.note(group, metric)})
        resampled.append(draws)
    return pd.DataFrame(rows), np.array(resampled)


def with_intervals(measured: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """A table of values with `low` and `high` from the resampled values of each row."""
    low, high = np.array([interval(row_draws) for row_draws in draws]).reshape(-1, 2).T
    split = measured.columns.get_loc("value") + 1
    before, after = measured.columns[:split], measured.columns[split:]
    return measured.assign(low=low, high=high)[[*before, "low", "high", *after]]


def compare(
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    labels: Names,
    patients: Names | None = None,
    groups: Sequence[Group] = metrics.MEAN,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Paired differences, second minus first, on the same images and the same resamples."""
    one = _Scored(targets, first, labels, patients, resamples, seed)
    two = _Scored(targets, second, labels, patients, resamples, seed)
    rows = []
    for group, metric in _rows(labels, groups):
        (value, draws), (other, other_draws) = one.value(group, metric), two.value(group, metric)
        low, high = interval(other_draws - draws)
        row = {"group": group.name, "metric": metric, "first": value, "second": other}
        row |= {"difference": other - value, "low": low, "high": high}
        rows.append(row | one.counts(group) | {"note": one.note(group, metric)})
    return pd.DataFrame(rows)


def _rows(labels: Names, groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """Labels are groups of one."""
    every = [*(Group(label, (label,)) for label in labels), *groups]
    return [(group, metric) for group in every for metric in group.metrics]


class _Scored:
    """One model's scores and resampled scores, once for each view that a group asks for."""

    def __init__(self, targets, probabilities, labels, patients, resamples, seed):
        self.targets, self.probabilities = metrics.checked(targets, probabilities)
        if len(labels) != self.targets.shape[1] or len({*labels}) != len(labels):
            raise EvaluationError(
                f"{len(labels)} label names, which must differ, for {self.targets.shape[1]} columns"
            )
        self.labels, self.patients = list(labels), patients
        self.resamples, self.seed, self.views = resamples, seed, {}

    def view(self, group: Group) -> tuple[np.ndarray, Scores, Scores | None]:
        group.columns(self.labels)  # a missing label is named before it is looked up
        if group.view not in self.views:
            targets, probabilities = group.arrays(self.targets, self.probabilities, self.labels)
            draws = None
            if self.resamples:
                draws = scores(targets, probabilities, self.patients, self.resamples, self.seed)
            self.views[group.view] = targets, metrics.score(targets, probabilities), draws
        return self.views[group.view]

    def value(self, group: Group, metric: str) -> tuple[float, np.ndarray]:
        _, point, draws = self.view(group)
        resampled = group.value(draws, self.labels, metric) if draws else np.empty(0)
        return float(group.value(point, self.labels, metric)), resampled

    def counts(self, group: Group) -> dict[str, int]:
        known = ~np.isnan(self.view(group)[0][:, group.columns(self.labels)])
        positives = self.view(group)[1].positives[group.columns(self.labels)].sum()
        return {"positives": int(positives), "images": int(known.any(axis=1).sum())}

    def note(self, group: Group, metric: str) -> str:
        """Which labels are undefined, and in how many resamples more of them were."""
        columns = group.columns(self.labels)
        _, point, draws = self.view(group)
        undefined = np.isnan(point.metric(metric)[columns])
        names = [self.labels[column] for column in np.array(columns)[undefined]]
        notes = [f"one class only: {', '.join(names)}"] if names else []
        if draws and not undefined.all():
            defined = np.array(columns)[~undefined]
            dropped = np.isnan(draws.metric(metric)[:, defined]).any(axis=1).sum()
            if dropped:
                notes.append(
                    f"{dropped} of {self.resamples} resamples had one class only, and do not count"
                )
        return "; ".join(notes)


def _patient_index(patients: Names | None, images: int) -> np.ndarray:
    """The row of each image's patient among the sorted patients."""
    ids = np.arange(images) if patients is None else np.asarray(patients, str)
    if len(ids) != images:
        raise EvaluationError(f"{len(ids)} patient ids were given for {images} images")
    distinct, index = np.unique(ids, return_inverse=True)
    if len(distinct) < 2:
        raise EvaluationError(
            f"a bootstrap over patients needs at least two, but there is {len(distinct)}"
        )
    return index


def _weights(patient: np.ndarray, resamples: int, seed: int, block: int) -> Iterator[np.ndarray]:
    """How often each patient is drawn: (patients, up to `block`) for one block after another."""
    count = int(patient.max()) + 1
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        width = min(block, resamples - start)
        weights = np.empty((count, width))
        for column in range(width):
            weights[:, column] = np.bincount(generator.integers(count, size=count), minlength=count)
        yield weights


def _ranks(target: np.ndarray, score: np.ndarray, patient: np.ndarray) -> tuple:
    """Sparse sums of patients' weights at the positives' distinct scores, highest first.

    Positives with that score; negatives with it or above it but below the previous one (a last
    row has the rest); and, where there are any, negatives that tie with it.
    """
    positive, negative = target == 1, target == 0
    thresholds, rank = np.unique(-score[positive], return_inverse=True)
    row = np.searchsorted(thresholds, -score[negative], "left")
    tied = row < np.searchsorted(thresholds, -score[negative], "right")
    patients, count = int(patient.max()) + 1, len(thresholds)
    return (
        _sums(rank, patient[positive], count, patients),
        _sums(row, patient[negative], count + 1, patients),
        _sums(row[tied], patient[negative][tied], count, patients) if tied.any() else None,
    )


def _sums(rows: np.ndarray, columns: np.ndarray, *shape: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape)


def _score_label(ranks: tuple, weights: np.ndarray) -> np.ndarray:
    """AUC, AP, positives and negatives of one label in a block: (4, block)."""
    positive_sums, negative_sums, tied_sums = ranks
    positive = positive_sums @ weights  # (scores, block)
    true = np.cumsum(positive, axis=0)  # positives at or above each score
    false = np.cumsum(negative_sums @ weights, axis=0)  # negatives likewise, and all of them
    positives, negatives = positive.sum(axis=0), false[-1].copy()
    false = false[:-1]
    auc = positives * negatives - np.einsum("sb,sb->b", positive, false)
    if tied_sums is not None:
        auc += np.einsum("sb,sb->b", positive, tied_sums @ weights) / 2
    false += true
    np.maximum(false, 1, out=false)  # 0 only where nothing was drawn, and nothing is added
    true /= false
    ap = np.einsum("sb,sb->b", positive, true)
    with np.errstate(divide="ignore", invalid="ignore"):
        auc, ap = auc / (positives * negatives), ap / positives
    one_class = (positives == 0) | (negatives == 0)
    auc[one_class] = ap[one_class] = np.nan
    return np.stack([auc, ap, positives, negatives])
