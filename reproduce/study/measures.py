"""Measure a row, or the difference between two rows, with a 95 % interval.

Intervals are over the test patients and over seeds. Two rows are resampled with the same patients
and the same seeds, so their difference is paired.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import label_tree, labels
from evaluation import bootstrap, metrics, uncertainty
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce.engine.rows import Run
from reproduce.engine.runs import load_predictions
from reproduce.tables import scoring


class Measured(NamedTuple):
    """A row's number and its value in every resample."""

    value: float
    draws: np.ndarray  # (resamples,)


class Effect(NamedTuple):
    """The difference between a row and another."""

    name: str  # in the figure's legend
    row: str
    against: str


AT, MEAN, CHANGE, EVEN = "at", "mean", "change", "break-even"  # parts of an effect
STEPS = 201  # of the knob, where a break-even is looked for


@dataclass(frozen=True)
class Panel:
    """One measure of a contrast, and the differences of rows that it is taken of."""

    title: str
    measure: Callable[[Sequence[Run], int], dict[str, Measured]]  # runs, resamples -> by row
    effects: Sequence[Effect]

    def table(self, measured: dict[float, dict[str, Measured]], log: bool = False) -> pd.DataFrame:
        """Return one line per effect and part, from the measured rows at each value of the knob.

        After the effects follow the rows that others are compared with, each "itself".
        """
        baselines = dict.fromkeys(effect.against for effect in self.effects if effect.against)
        effects = (*self.effects, *(Effect(f"{name} itself", name, "") for name in baselines))
        lines = []
        for effect in effects:
            named = {"panel": self.title, "effect": effect.name, "against": effect.against}
            each = [difference(by_row, effect) for by_row in measured.values()]
            lines += [named | part for part in parts(each, [*measured], log)]
        return pd.DataFrame(lines)


def difference(measured: dict[str, Measured], effect: Effect) -> Measured | None:
    """Return the difference of two rows, or one row; None if a row is missing."""
    if not measured.keys() >= {effect.row, effect.against} - {""}:
        return None
    value, draws = measured[effect.row]
    if not effect.against:
        return Measured(value, draws)
    other = measured[effect.against]
    return Measured(value - other.value, draws - other.draws)


def parts(each: Sequence[Measured | None], knobs: Sequence[float], log: bool) -> list[dict]:
    """Return an effect at each value of the knob, its mean, its change and its break-even.

    The change is that of a least-squares line over the knob (or its logarithm), from the first
    value to the last. The break-even is where that line is 0; its interval holds all values at
    which the line's interval has 0 in it. All are computed in every resample of patients and
    seeds, so they are paired over the knob too.
    """
    lines = [
        {"part": AT, "knob": knob, **_with_ends(one.value, one.draws)}
        for knob, one in zip(knobs, each, strict=True)
        if one is not None
    ]
    known = [one for one in each if one is not None]
    if len(known) < max(len(each), 2):
        return lines
    values = np.array([np.append(one.value, one.draws) for one in known])  # (knobs, 1 + resamples)
    axis = np.log10(knobs) if log else np.asarray(knobs, float)
    centred = axis - axis.mean()
    mean, slope = values.mean(axis=0), centred @ values / (centred @ centred)
    change = slope * (axis[-1] - axis[0])
    for part, (point, *draws) in ((MEAN, mean), (CHANGE, change)):
        lines.append({"part": part, "knob": np.nan, **_with_ends(point, np.array(draws))})
    grid = np.linspace(axis[0], axis[-1], STEPS)
    line = mean[:, None] + slope[:, None] * (grid - axis.mean())
    low, high = np.quantile(line[1:], [0.025, 0.975], axis=0)
    within = grid[(low <= 0) & (high >= 0)]
    if line[0].min() < 0 < line[0].max() and len(within) < STEPS:
        crossing = axis.mean() - mean[0] / slope[0]
        ends = np.array([crossing, within[0], within[-1]])
        value, low, high = 10**ends if log else ends
        lines.append({"part": EVEN, "knob": np.nan, "value": value, "low": low, "high": high})
    return lines


def _with_ends(value: float, draws: np.ndarray) -> dict[str, float]:
    """Return a value with the ends of its 95 % and 90 % intervals."""
    low, high = bootstrap.interval(draws)
    low90, high90 = bootstrap.interval(draws, 0.9)
    return {"value": value, "low": low, "high": high, "low90": low90, "high90": high90}


@dataclass(frozen=True)
class AUC:
    """The mean AUC of a group of labels."""

    group: Group

    def __call__(self, runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        scored = scoring.score(runs, lambda names: (self.group,), resamples)
        key = self.group.name, "AUC"
        measured = {}
        for name, row in scored.items():
            value = row.table.set_index(scoring.KEYS).loc[key, "value"]
            measured[name] = Measured(float(value), row.draws.loc[key].to_numpy())
        return measured


@dataclass(frozen=True)
class ErrorDetection:
    """How well a row's spread over dropout passes, and the entropy of its mean, find its errors.

    The number is the AUROC over the images of each label, averaged over labels. An error is a
    probability on the wrong side of 0.5.
    """

    row: str

    def __call__(self, runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        runs = [run for run in runs if run.row.name == self.row]
        measured = {}
        for doubt in (spread, entropy):
            by_row = _by_row(runs, functools.partial(_error_detection, doubt), resamples)
            if self.row in by_row:
                measured[doubt.__name__] = by_row[self.row]
        return measured


@dataclass(frozen=True)
class Violations:
    """The mean number per image of labels that are predicted above their parent in Asadi's tree.

    With a threshold, only pairs count whose child reaches it and whose parent does not.
    """

    threshold: float | None = None

    def __call__(self, runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        return _by_row(runs, self._count, resamples)

    def _count(self, predicted: Predictions, resamples: int) -> Measured:
        assert tuple(predicted.labels) == labels.ASADI
        child, parent = np.argwhere(label_tree.parent_matrix(label_tree.ASADI) > 0).T
        above, below = predicted.mean[:, child], predicted.mean[:, parent]
        violated = above > below
        if self.threshold is not None:
            violated = (above >= self.threshold) & (below < self.threshold)
        counts = violated.sum(axis=1)
        columns = np.column_stack([counts, np.ones(len(counts))])
        total, images = bootstrap.totals(columns, predicted.patients, resamples).T
        return Measured(float(counts.mean()), total / images)


def spread(predicted: Predictions) -> np.ndarray:
    """Return the standard deviation over dropout passes, by image and label."""
    return uncertainty.spread(predicted.probabilities)


def entropy(predicted: Predictions) -> np.ndarray:
    """Return the entropy of the mean probability, by image and label."""
    return uncertainty.entropy(predicted.mean)


def _error_detection(
    doubt_of: Callable[[Predictions], np.ndarray], predicted: Predictions, resamples: int
) -> Measured:
    """Return how well the doubt about each prediction finds the errors of a run."""
    targets, mean, doubt = predicted.targets, predicted.mean, doubt_of(predicted)

    def statistic(images: np.ndarray) -> np.ndarray:
        by_label = uncertainty.error_detection(targets[images], mean[images], doubt[images])
        return metrics.macro_mean(by_label)

    every = np.arange(len(predicted.ids))
    draws = bootstrap.each(statistic, predicted.patients, resamples)
    return Measured(float(statistic(every)), draws)


def _by_row(
    runs: Sequence[Run], statistic: Callable[[Predictions, int], Measured], resamples: int
) -> dict[str, Measured]:
    """Return the mean over seeds of each row, resampled over patients and seeds."""
    finished = [run for run in runs if run.finished]
    measured = {}
    for name in dict.fromkeys(run.row.name for run in finished):
        seeds = [run for run in finished if run.row.name == name]
        by_seed = [statistic(load_predictions(run.folder, run.digest), resamples) for run in seeds]
        draws = np.stack([each.draws for each in by_seed])[:, None]
        points = np.array([[each.value] for each in by_seed])
        draws = scoring.over_seeds(draws, points, [run.seed for run in seeds])[0]
        measured[name] = Measured(float(np.mean([each.value for each in by_seed])), draws)
    return measured
