"""The types of a table: a row and its three parts, the data it runs on, and a run of it.

A row is one line of a published table: a trained network, which may start from another row's
weights, or a combination of other rows' predictions. `Task` says what it learns, `Fit` how it is
trained, `Readout` how its outputs become probabilities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from data.augment import AS_STORED, Augment
from data.cache import Cache
from evaluation import metrics, probabilities
from evaluation.predictions import Predictions
from models import inference
from reproduce import RunError

PHANTOMS = "drawn phantoms"


def mean_auc(truth: np.ndarray, probabilities: np.ndarray, loss: float) -> float:
    """Select the epoch with the highest exact mean AUC; Keras' metric is of binned scores."""
    return float(metrics.macro_mean(metrics.auroc(truth, probabilities)))


def mean_auc_of(columns: Sequence[int] | np.ndarray) -> Callable:
    """Select the epoch with the highest mean AUC of some labels."""
    return lambda truth, probabilities, loss: mean_auc(
        truth[:, columns], probabilities[:, columns], loss
    )


def lowest_loss(truth: np.ndarray, probabilities: np.ndarray, loss: float) -> float:
    """Select the epoch with the lowest validation loss."""
    return -loss


def to_the_end(history: list[dict]) -> bool:
    """No early stopping."""
    return False


@dataclass(frozen=True)
class Task:
    """What a row learns."""

    labels: Sequence[str]
    targets: np.ndarray  # (images, outputs) to train towards, in [0, 1] or NaN
    truth: np.ndarray  # (images, labels) to be scored against: 0, 1 or NaN


@dataclass(frozen=True)
class Fit:
    """How a row is trained."""

    epochs: int  # 0: not trained, the weights it starts from are read in another way
    learning_rate: Callable  # (epoch, history of the epochs before) -> rate
    select: Callable = mean_auc  # (truth, probabilities, loss) of validation -> highest is best
    augment: Augment = AS_STORED  # of training images; a crop to Config's size comes before it
    stop: Callable = to_the_end  # (history) -> whether early stopping ends the training
    head_only: bool = False  # all layers but the last keep the weights they started with
    reseed: int = 0  # added to the run's seed: the same network, drawn and shuffled anew


@dataclass(frozen=True)
class Readout:
    """How a network's outputs become probabilities."""

    probabilities: Callable = probabilities.sigmoid  # logits -> probabilities of the task's labels
    passes: Callable = inference.single_pass  # over the test images: one, or several that differ


@dataclass(frozen=True)
class Row:
    """One trained network of a table."""

    name: str
    task: Task
    loss: Callable  # () -> a Keras loss on logits
    fit: Fit
    readout: Readout = Readout()
    start_from: str = ""  # the row whose best weights it starts from
    network: dict = field(default_factory=dict)  # its backbone, and what else Config does not say
    build: Callable | None = None  # (**network) -> linear logits; None: models.classifier.build
    data: Callable | None = None  # () -> the Data that it sees, where that is not the script's
    settings: dict = field(default_factory=dict)  # what Config does not say of it, for the record
    ignores: Sequence[str] = ()  # fields of Config that do not change it
    note: str = ""  # stands under the tables


def mean_of(*parts: Predictions) -> np.ndarray:
    """Every part a member: (parts, images, labels), of which the mean is the combination."""
    return np.stack([part.mean for part in parts])


@dataclass(frozen=True)
class Combined:
    """A row computed from the predictions of others: an ensemble, a fusion, another reading."""

    name: str
    of: Sequence[str]
    combine: Callable = mean_of  # (Predictions of each) -> probabilities (members, images, labels)
    note: str = ""


def wanted(rows: Sequence[Row | Combined], names: Sequence[str] | None) -> list[Row | Combined]:
    """The rows asked for and those they start from or combine, in the script's order."""
    by_name = {row.name: row for row in rows}
    if not names:
        return list(rows)
    given = [[text] if text in by_name else text.split(",") for text in names]  # names may have one
    asked, needed = [name.strip() for texts in given for name in texts], set()
    while asked:
        if (name := asked.pop()) not in by_name:
            raise RunError(f"There is no row {name!r}; the rows are {', '.join(by_name)}.")
        needed.add(name)
        asked += parents(by_name[name])
    return [row for row in rows if row.name in needed]


def parents(row: Row | Combined) -> list[str]:
    """The rows whose weights or predictions a row needs."""
    if isinstance(row, Combined):
        return list(row.of)
    return [row.start_from] if row.start_from else []


class Data(NamedTuple):
    """The images that a script runs on, decoded once."""

    frame: pd.DataFrame  # image_path, patient_id, split, labels as released
    cache: Cache | None  # None: a trained run is rebuilt without its images
    facts: dict  # what the runs record of it
    not_comparable: str | None = None  # why no published number can be held against the results
    folder: str = ""  # the dataset's
    resized: int = 0  # pixels a side of a decoded image, before a template cuts it
    template: np.ndarray | None = None
    centre: Callable | None = None  # () -> the Data with the centre cut out instead of the template

    @property
    def dataset(self) -> str:
        return self.facts["dataset"]

    @property
    def pixels(self) -> Cache:
        """The decoded images, where they are wanted."""
        assert self.cache is not None
        return self.cache

    @property
    def phantom(self) -> bool:
        return self.not_comparable == PHANTOMS


AnyRow = TypeVar("AnyRow", bound=Row | Combined)


class Run(NamedTuple, Generic[AnyRow]):
    """A row with one seed, and the folder that is or will be its own."""

    row: AnyRow
    seed: int
    folder: Path
    settings: dict  # everything that decides what its numbers are
    digest: str = ""  # of the settings; "" for what somebody else predicted
    truth: dict = {}  # set -> digest of its images and truth  # noqa: RUF012

    @property
    def name(self) -> str:
        return f"{self.row.name}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return (self.folder / "predictions.npz").exists()
