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


@dataclass(frozen=True)
class Panel:
    """One axis of a contrast's figure."""

    title: str
    measure: Callable[[Sequence[Run], int], dict[str, Measured]]  # runs, resamples -> by row
    effects: Sequence[Effect]

    def table(self, measured: dict[str, Measured]) -> pd.DataFrame:
        """Return value and interval of each effect, then of each row that others are compared with.

        A row that failed gives NaN. `against` is empty unless the line is a difference.
        """
        baselines = dict.fromkeys(effect.against for effect in self.effects)
        rows = [Effect(f"{name} itself", name, "") for name in baselines]
        lines = []
        for effect in (*self.effects, *rows):
            value, low, high = _difference(measured, effect)
            line = {"panel": self.title, "effect": effect.name, "against": effect.against}
            lines.append(line | {"value": value, "low": low, "high": high})
        return pd.DataFrame(lines)


def _difference(measured: dict[str, Measured], effect: Effect) -> tuple[float, float, float]:
    """Return value, low and high of an effect; NaN if one of its rows is missing."""
    needed = {effect.row, effect.against} - {""}
    if not measured.keys() >= needed:
        return np.nan, np.nan, np.nan
    value, draws = measured[effect.row]
    if effect.against:
        other = measured[effect.against]
        value, draws = value - other.value, draws - other.draws
    return value, *bootstrap.interval(draws)


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


def violations(runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
    """Return each row's mean number of hierarchy violations per image."""
    return _by_row(runs, _violations, resamples)


def _violations(predicted: Predictions, resamples: int) -> Measured:
    """Count the pairs of Asadi's hierarchy whose child is more probable than its parent."""
    assert tuple(predicted.labels) == labels.ASADI
    pairs = np.argwhere(label_tree.parent_matrix(label_tree.ASADI) > 0)
    mean = predicted.mean
    counts = np.sum([mean[:, child] > mean[:, parent] for child, parent in pairs], axis=0)
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
