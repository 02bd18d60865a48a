"""What the further analyses of one model need, from a CSV, a run or the authors' own files."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.predictions import Predictions


class Sample(NamedTuple):
    """One model on some images."""

    labels: Sequence[str]
    targets: np.ndarray  # (images, labels), NaN where unknown
    probabilities: np.ndarray  # (images, labels), the mean over members
    patients: np.ndarray | None  # None: every image is another patient's
    ids: Sequence[str]
    about: dict[str, list[str]]  # sex, age, view of each image, where known


def of_predictions(scored: Predictions, about: dict[str, list[str]]) -> Sample:
    """Predictions with what is known about the images."""
    names = [str(name) for name in scored.labels]
    ids = [str(each) for each in scored.ids]
    return Sample(names, scored.targets, scored.mean, scored.patients, ids, about)
