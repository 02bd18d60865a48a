"""A model's predictions on some images, with all that the analyses of `details` need."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.predictions import Predictions


class Sample(NamedTuple):
    """The predictions of one model, from a CSV, a run or the authors' own files."""

    labels: Sequence[str]
    targets: np.ndarray  # (images, labels), NaN where unknown
    probabilities: np.ndarray  # (images, labels), the mean over members
    patients: np.ndarray | None  # None: every image counts as another patient
    ids: Sequence[str]
    about: dict[str, list[str]]  # sex, age, view of each image, if known


def of_predictions(scored: Predictions, about: dict[str, list[str]]) -> Sample:
    """Return the sample of a predictions file."""
    names = [str(name) for name in scored.labels]
    ids = [str(each) for each in scored.ids]
    return Sample(names, scored.targets, scored.mean, scored.patients, ids, about)
