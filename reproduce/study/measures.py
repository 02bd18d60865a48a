"""What a contrast measures: a row's number, or the difference of two, with its 95 % interval.

Intervals are over the test patients and over seeds: two rows are resampled with the same patients
and the same seeds, so their difference is paired.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data import label_tree, labels
from evaluation import bootstrap, metrics, uncertainty
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce.engine.rows import Run
from reproduce.tables import scoring


class Measured(NamedTuple):
    """A row's number and the same of every resample."""

    value: float
    draws: np.ndarray  # (resamples,)


Measure = Callable[[Sequence[Run], int], dict[str, Measured]]  # runs, resamples -> by row


class Effect(NamedTuple):
    """A row against another."""

    name: str  # in the figure's legend
    row: str
    against: str


@dataclass(frozen=True)
class Panel:
    """One axis of a contrast's figure."""

    title: str
    measure: Measure
    effects: Sequence[Effect]

    def effects_of(self, measured: dict[str, Measured]) -> Iterator[dict]:
        """Value and interval of each effect, then of each row that others are held against.

        `measured` is what `measure` gave. NaN where a row failed. Only a difference names the row
        that it is `against`.
        """
        held_against = dict.fromkeys(effect.against for effect in self.effects)
        own = [Effect(f"{row} itself", row, "") for row in held_against]
        for effect in (*self.effects, *own):
            line = {"panel": self.title, "effect": effect.name, "against": effect.against}
            needed = [name for name in (effect.row, effect.against) if name]
            if not measured.keys() >= {*needed}:
                yield line | dict.fromkeys(("value", "low", "high"), np.nan)
                continue
            value, draws = measured[effect.row]
            if effect.against:
                other = measured[effect.against]
                value, draws = value - other.value, draws - other.draws
            low, high = bootstrap.interval(draws)
            yield line | {"value": value, "low": low, "high": high}


def auc(group: Group = metrics.MEAN[0]) -> Measure:
    """The mean AUC of a group of labels."""

    def measure(runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        scored = scoring.score(runs, lambda names: (group,), resamples)
        key = group.name, "AUC"
        return {
            name: Measured(
                float(row.table.set_index(scoring.KEYS).loc[key, "value"]),
                row.draws.loc[key].to_numpy(),
            )
            for name, row in scored.items()
        }

    return measure


def of_images(statistic: Callable[[Predictions], np.ndarray]) -> Measure:
    """The mean over images of a number that each image has of its own: (images,)."""

    def measure(runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        def draws(predicted: Predictions) -> np.ndarray:
            values = np.column_stack([statistic(predicted), np.ones(len(predicted.ids))])
            total, images = bootstrap.totals(values, predicted.patients, resamples).T
            return total / images

        return _over_runs(runs, lambda predicted: float(statistic(predicted).mean()), draws)

    return measure


def of_predictions(statistic: Callable[[Predictions, np.ndarray], float]) -> Measure:
    """Any number of some images of a run's predictions: `statistic(predictions, their rows)`."""

    def measure(runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        def value(predicted: Predictions) -> float:
            return statistic(predicted, np.arange(len(predicted.ids)))

        def draws(predicted: Predictions) -> np.ndarray:
            def of(images: np.ndarray) -> np.ndarray:
                return np.asarray(statistic(predicted, images))

            return bootstrap.each(of, predicted.patients, resamples)

        return _over_runs(runs, value, draws)

    return measure


def _over_runs(runs: Sequence[Run], value: Callable, draws: Callable) -> dict[str, Measured]:
    """A statistic of every row: its mean over seeds, and its draws over patients and seeds."""
    measured = {}
    for name in dict.fromkeys(run.row.name for run in runs if run.finished):
        of_row = [run for run in runs if run.row.name == name and run.finished]
        predicted = [scoring.state.load_predictions(run.folder, run.digest) for run in of_row]
        by_seed = np.stack([draws(each) for each in predicted])[:, None]
        resampled = scoring.over_seeds(by_seed, [run.seed for run in of_row])[0]
        measured[name] = Measured(float(np.mean([value(each) for each in predicted])), resampled)
    return measured


def violations_of_asadi(predicted: Predictions) -> np.ndarray:
    """(images,) pairs of Asadi's hierarchy in which the child is more probable than its parent."""
    names = list(predicted.labels)
    assert tuple(names) == labels.ASADI
    parents = label_tree.parent_matrix(label_tree.ASADI)
    mean = predicted.mean
    return np.sum([mean[:, c] > mean[:, p] for c, p in np.argwhere(parents > 0)], axis=0)


def finding_errors(row: str) -> Measure:
    """How well a row's spread over dropout passes, and the entropy of its mean, find its errors.

    AUROC over the images of each label, mean over labels; an error is a wrong side of 0.5.
    """

    def by_spread(predicted: Predictions, images: np.ndarray) -> float:
        return _detection(predicted, images, uncertainty.spread(predicted.probabilities))

    def by_entropy(predicted: Predictions, images: np.ndarray) -> float:
        return _detection(predicted, images, uncertainty.entropy(predicted.mean))

    def measure(runs: Sequence[Run], resamples: int) -> dict[str, Measured]:
        of_row = [run for run in runs if run.row.name == row]
        found: dict[str, Measured] = {}
        for name, statistic in (("spread", by_spread), ("entropy", by_entropy)):
            measured = of_predictions(statistic)(of_row, resamples)
            found |= {name: measured[row]} if row in measured else {}
        return found

    return measure


def _detection(predicted: Predictions, images: np.ndarray, doubt: np.ndarray) -> float:
    targets, mean = predicted.targets[images], predicted.mean[images]
    return float(metrics.macro_mean(uncertainty.error_detection(targets, mean, doubt[images])))
