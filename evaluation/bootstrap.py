"""Compute confidence intervals by resampling patients, and paired differences of two models.

Patients are drawn with replacement, each with all of their images. Scores are sorted once: a
resample only changes how often each patient counts. A block of resamples is one sparse product that
sums the patients' weights per rank, and the metrics follow exactly from cumulative sums, ties
included. The draws depend only on (patients, resamples, seed), so two models that are scored with
the same three are paired.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit, ndtr, ndtri

from evaluation import EvaluationError, Names, metrics
from evaluation.metrics import METRICS, Group, Scores, WeightedRanking

Cases = Sequence[int] | np.ndarray  # patients with a finding, patients without
LEVEL = 0.95
FEW = 200  # patients with (or without) a finding: with fewer, its resamples vary too little
NOTED = 20  # with fewer, a note says so
FEWEST = 3  # with fewer, no interval
NO_INTERVAL, VERY_FEW = "no interval of so few cases", "very few cases, so a wide interval"
BLOCK = 16  # resamples per block: the weights of one patient fill one or two cache lines


def scores(
    targets: np.ndarray,
    probabilities: np.ndarray,
    patients: Names | None = None,
    resamples: int = 1000,
    seed: int = 0,
    block: int = BLOCK,
) -> Scores:
    """Return `metrics.score` for every resample; its arrays are (resamples, labels).

    Without `patients`, every image is its own patient.
    """
    targets, probabilities = metrics.checked(targets, probabilities)
    patient = patient_index(patients, len(targets))
    ranks = [
        _ranks(target, column, patient)
        for target, column in zip(targets.T, probabilities.T, strict=True)
    ]
    images_of, by_block = np.bincount(patient), []
    for weights in _weights(patient, resamples, seed, block):  # (patients, block)
        by_label = [_score_label(label_ranks, weights) for label_ranks in ranks]
        by_block.append((*np.moveaxis(np.array(by_label), 0, -1), images_of @ weights))
    columns = [np.concatenate(parts) for parts in zip(*by_block, strict=True)]
    *values, positives, negatives, images = columns
    return Scores(dict(zip(METRICS, values, strict=True)), positives, negatives, images)


def each(
    statistic: Callable[[np.ndarray], np.ndarray],
    patients: Names,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Return a statistic of the drawn image indices for the draws of `scores`: (resamples, ...)."""
    patient = patient_index(patients, len(patients))
    every = np.arange(len(patient))
    drawn = (
        column for weights in _weights(patient, resamples, seed, BLOCK) for column in weights.T
    )
    return np.array([statistic(np.repeat(every, counts[patient].astype(int))) for counts in drawn])


def totals(
    values: np.ndarray, patients: Names | None = None, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Return the sum over images (first axis) in every resample, for the draws of `scores`."""
    values = np.asarray(values, float)
    patient = patient_index(patients, len(values))
    by_patient = np.zeros((int(patient.max()) + 1, int(np.prod(values.shape[1:]))))
    np.add.at(by_patient, patient, values.reshape(len(values), -1))
    drawn = [weights.T @ by_patient for weights in _weights(patient, resamples, seed, BLOCK)]
    return np.concatenate(drawn).reshape(resamples, *values.shape[1:])


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of the resamples that have a value; NaN if none has."""
    known = np.asarray(values)[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    return tuple(np.quantile(known, [(1 - level) / 2, (1 + level) / 2]))


def corrected(
    draws: np.ndarray,
    value: float,
    cases: int,
    variance: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return the draws of a number that depends on so many patients, corrected if these are few.

    Resamples of few patients vary too little. Their order stays, so that two models' draws stay
    paired, but they follow score intervals if a `variance` is given, and are stretched otherwise.
    docs/statistics.md has the coverage of both.
    """
    if cases < FEWEST:
        return np.full(draws.shape, np.nan)
    if cases >= FEW or np.isnan(value):
        return draws
    return stretch(draws, cases) if variance is None else follow(draws, value, variance)


def few_cases(draws: np.ndarray, value: float, metric: str, cases: Cases) -> np.ndarray:
    """Return the draws of one label's metric; an AUC of few cases follows Newcombe's intervals."""
    return corrected(draws, value, min(cases), newcombe(*cases) if metric == "AUC" else None)


def stretch_few(draws: np.ndarray, cases: int) -> np.ndarray:
    """Return the draws of a difference, stretched where it depends on few patients."""
    return corrected(draws, 0.0, cases)


def patients_of(targets: np.ndarray, patients: Names | None) -> np.ndarray:
    """Return how many patients have images with each label, and without: (labels, 2)."""
    patient = patient_index(patients, len(targets))
    count = patient.max() + 1
    return np.array(
        [
            [(np.bincount(patient[target == each], minlength=count) > 0).sum() for each in (1, 0)]
            for target in targets.T
        ]
    )


def follow(
    draws: np.ndarray, value: float, variance: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return draws in the same order whose quantiles are the ends of score intervals.

    A score interval holds each true value t with |value - t| <= z sqrt(variance(t)), where z
    belongs to its level. A draw is replaced by the end whose level belongs to the draw's rank.
    """
    known, z = _normal_scores(draws)
    true = expit(np.linspace(-16, 16, 2001))
    followed = np.full(draws.shape, np.nan)
    followed[known] = np.interp(z, (true - value) / np.sqrt(variance(true)), true)
    return followed


def stretch(draws: np.ndarray, cases: float) -> np.ndarray:
    """Return draws in the same order with quantiles further out, by 1 + 1 / sqrt(cases)."""
    known, z = _normal_scores(draws)
    stretched = np.full(draws.shape, np.nan)
    if known.any():
        stretched[known] = np.quantile(draws[known], ndtr(z * (1 + cases**-0.5)))
    return stretched


def _normal_scores(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which draws have a value, and the normal quantile of each one's rank."""
    known = ~np.isnan(draws)
    count = known.sum()
    rank = np.empty(count)
    rank[np.argsort(draws[known], kind="stable")] = np.arange(count)
    return known, ndtri((rank + 0.5) / max(count, 1))


def newcombe(positives: float, negatives: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the variance of an estimate of an AUC t: method 5 of Newcombe 2006.

    It is Hanley and McNeil's, with the mean of both counts everywhere but in the denominator.
    """
    mean = (positives + negatives) / 2 - 1

    def variance(t: np.ndarray) -> np.ndarray:
        spread = 1 + mean * (1 - t) / (2 - t) + mean * t / (1 + t)
        return t * (1 - t) * spread / (positives * negatives)

    return variance


def wilson(cases: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the variance of an estimate of a share t among so many cases."""
    return lambda t: t * (1 - t) / cases


def simultaneous(
    values: np.ndarray, draws: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals that hold all of several true values together, with this probability.

    `values` are (comparisons,) and `draws` (comparisons, resamples). The half-width is the quantile
    of the largest |draw - value| / deviation of a resample (max-T), times the deviation. A single
    comparison has its percentile interval.
    """
    if len(draws) == 1:
        low, high = interval(draws[0], level)
        return np.array([low]), np.array([high])
    deviation = draws.std(axis=1, ddof=1)
    scaled = np.divide(
        np.abs(draws - values[:, None]),
        deviation[:, None],
        out=np.zeros_like(draws),
        where=deviation[:, None] > 0,
    )
    half = np.quantile(scaled.max(axis=0), level) * deviation
    return values - half, values + half


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
    """Return one line per label or group and metric: value, low, high, counts and a note."""
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
    """Return `table` without intervals, and the resampled values of its rows: (rows, resamples)."""
    scored = _Scored(targets, probabilities, labels, patients, resamples, seed)
    rows, resampled = [], []
    for group, metric in _rows(labels, groups):
        value, draws = scored.value(group, metric)
        row = {"group": group.name, "metric": metric, "value": value}
        rows.append(row | scored.counts(group) | {"note": scored.note(group, metric)})
        resampled.append(draws)
    return pd.DataFrame(rows), np.array(resampled)


def with_intervals(measured: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """Return the table of values with `low` and `high` from the resampled values of each row."""
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
    """Return paired differences, second minus first, on the same images and resamples."""
    one = _Scored(targets, first, labels, patients, resamples, seed)
    two = _Scored(targets, second, labels, patients, resamples, seed)
    rows = []
    for group, metric in _rows(labels, groups):
        (value, draws), (other, other_draws) = one.value(group, metric), two.value(group, metric)
        low, high = interval(one.difference(group, other_draws - draws))
        row = {"group": group.name, "metric": metric, "first": value, "second": other}
        row |= {"difference": other - value, "low": low, "high": high}
        rows.append(row | one.counts(group) | {"note": one.note(group, metric)})
    return pd.DataFrame(rows)


def _rows(labels: Names, groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """Return every (group, metric) of a table, single labels first as groups of one."""
    every = [*(Group(label, (label,)) for label in labels), *groups]
    return [(group, metric) for group in every for metric in group.metrics]


class _Scored:
    """One model's scores and resampled scores, computed once per view of the groups."""

    def __init__(self, targets, probabilities, labels, patients, resamples, seed):
        self.targets, self.probabilities = metrics.checked(targets, probabilities)
        if len(labels) != self.targets.shape[1] or len({*labels}) != len(labels):
            raise EvaluationError(
                f"{len(labels)} label names, which must differ, for {self.targets.shape[1]} columns"
            )
        self.labels, self.patients = list(labels), patients
        self.resamples, self.seed, self.views = resamples, seed, {}
        self.patient_counts: dict[tuple, np.ndarray] = {}

    def view(self, group: Group) -> tuple[np.ndarray, Scores, Scores | None]:
        group.columns(self.labels)  # raises if a label of the group is missing
        if group.view not in self.views:
            targets, probabilities = group.arrays(self.targets, self.probabilities, self.labels)
            draws = None
            if self.resamples:
                draws = scores(targets, probabilities, self.patients, self.resamples, self.seed)
            self.views[group.view] = targets, metrics.score(targets, probabilities), draws
        return self.views[group.view]

    def value(self, group: Group, metric: str) -> tuple[float, np.ndarray]:
        _, point, draws = self.view(group)
        value = float(group.value(point, self.labels, metric))
        if draws is None:
            return value, np.empty(0)
        resampled = group.value(draws, self.labels, metric)
        if (cases := self.cases(group)) is None:
            return value, resampled
        return value, few_cases(resampled, value, metric, cases)

    def cases(self, group: Group) -> Cases | None:
        """Return the patients with and without the group's only label; None of several labels."""
        columns = group.columns(self.labels)
        if len(columns) != 1:
            return None
        if group.view not in self.patient_counts:
            counts = patients_of(self.view(group)[0], self.patients)
            self.patient_counts[group.view] = counts
        with_it, without = self.patient_counts[group.view][columns[0]]
        return int(with_it), int(without)

    def difference(self, group: Group, draws: np.ndarray) -> np.ndarray:
        """Return the draws of a difference of two models, stretched where cases are few."""
        cases = self.cases(group)
        return stretch_few(draws, min(cases)) if cases else draws

    def counts(self, group: Group) -> dict[str, int]:
        known = ~np.isnan(self.view(group)[0][:, group.columns(self.labels)])
        positives = self.view(group)[1].positives[group.columns(self.labels)].sum()
        return {"positives": int(positives), "images": int(known.any(axis=1).sum())}

    def note(self, group: Group, metric: str) -> str:
        """Say which labels are undefined, which interval few cases have, and what a mean covers."""
        columns = group.columns(self.labels)
        _, point, draws = self.view(group)
        undefined = np.isnan(point.values[metric][columns])
        names = [self.labels[column] for column in np.array(columns)[undefined]]
        notes = [f"one class only: {', '.join(names)}"] if names else []
        if draws is None or undefined.all():
            return "; ".join(notes)
        if cases := self.cases(group):
            if min(cases) < FEWEST:
                notes.append(f"{NO_INTERVAL} ({min(cases)} patients)")
            elif min(cases) < NOTED:
                notes.append(f"{VERY_FEW} ({min(cases)} patients)")
        else:
            defined = np.array(columns)[~undefined]
            partial = np.isnan(draws.values[metric][:, defined]).any(axis=1).sum()
            if partial:
                share = f"{partial} of {self.resamples} resamples"
                notes.append(f"{share} lack a label, and average the others")
        return "; ".join(notes)


def patient_index(patients: Names | None, images: int) -> np.ndarray:
    """Return the index of each image's patient among the sorted patients."""
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
    """Yield how often each patient is drawn, (patients, block) for one block after another."""
    count = int(patient.max()) + 1
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        width = min(block, resamples - start)
        weights = np.empty((count, width))
        for column in range(width):
            weights[:, column] = np.bincount(generator.integers(count, size=count), minlength=count)
        yield weights


def _ranks(target: np.ndarray, score: np.ndarray, patient: np.ndarray) -> tuple:
    """Return matrices that sum patients' weights at the positives' distinct scores, highest first.

    The first sums the positives with that score. The second sums the negatives with that score or
    above it, but below the previous one; its last row has all remaining negatives. The third sums
    the negatives that tie with the score, and is None if there are none.
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
    """Return every metric and both counts of one label: (metrics + 2, block)."""
    positive_sums, negative_sums, tied_sums = ranks
    positives_here = positive_sums @ weights  # (scores, block)
    false_alarms = np.cumsum(negative_sums @ weights, axis=0)  # the last row counts all negatives
    ranking = WeightedRanking(
        positives_here=positives_here,
        negatives_here=None if tied_sums is None else tied_sums @ weights,
        true_alarms=np.cumsum(positives_here, axis=0),
        false_alarms=false_alarms[:-1],
        positives=positives_here.sum(axis=0),
        negatives=false_alarms[-1],
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.stack([metric.weighted(ranking) for metric in METRICS.values()])
    values[:, (ranking.positives == 0) | (ranking.negatives == 0)] = np.nan
    return np.stack([*values, ranking.positives, ranking.negatives])
