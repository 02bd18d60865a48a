"""Predictions on disk: the boundary between networks and numbers.

A file holds ids, patients, labels, targets (0, 1 or NaN) and probabilities with a leading axis of
members (ensemble, test-time draws or Monte-Carlo passes; one for a plain network).
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import files
from evaluation import EvaluationError


class Predictions(NamedTuple):
    ids: np.ndarray  # (images,)
    patients: np.ndarray  # (images,)
    labels: np.ndarray  # (labels,)
    targets: np.ndarray  # (images, labels) float32, NaN where unknown
    probabilities: np.ndarray  # (members, images, labels) float32
    meta: dict

    @property
    def mean(self) -> np.ndarray:
        """(images, labels): the mean over members, which is what is scored."""
        return self.probabilities.mean(axis=0)


def pooled(found: Predictions, units: Sequence[str], pool: Callable = np.mean) -> Predictions:
    """One prediction a unit, a study say, from those of its images: their mean, or another pool."""
    names, first, unit = np.unique(np.asarray(units, str), return_index=True, return_inverse=True)
    if not np.array_equal(found.targets, found.targets[first][unit], equal_nan=True):
        raise EvaluationError("The images of a study have different truths; score them one by one.")
    images = [np.flatnonzero(unit == each) for each in range(len(names))]
    probabilities = [pool(found.probabilities[:, of_unit], axis=1) for of_unit in images]
    return found._replace(
        ids=names,
        patients=found.patients[first],
        targets=found.targets[first],
        probabilities=np.stack(probabilities, axis=1),
    )


def save(path: str | Path, found: Predictions) -> None:
    """Write a predictions file, whole or not at all."""
    with files.whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.asarray(found.ids, str),
            patients=np.asarray(found.patients, str),
            labels=np.asarray(found.labels, str),
            targets=np.asarray(found.targets, np.float32),
            probabilities=np.asarray(found.probabilities, np.float32),
            meta=json.dumps(found.meta),
        )


def load(path: str | Path) -> Predictions:
    """A predictions file, or an EvaluationError that says what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in Predictions._fields}
    except FileNotFoundError as error:
        raise EvaluationError(f"There is no predictions file {path}; check the path.") from error
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path} is no predictions file of this suite ({error}).") from error
    return Predictions(**(arrays | {"meta": json.loads(str(arrays["meta"]))}))
