"""The rows of a table as data: what each one learns, how it is trained, how it is read.

A row is one line of a published table: a trained network, which may start from another row's
weights, or a combination of other rows' predictions. Every part of a row is a plain value, a frozen
dataclass, a named function, or such a function with constants (`functools.partial`). So rows can be
listed, compared and hashed without images, labels or TensorFlow. Whatever depends on the training
labels, such as class weights, is computed from them when training starts.
"""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

import losses
import models
from data.augment import AS_STORED, Augment
from data.cache import Cache
from evaluation import metrics
from evaluation.predictions import Predictions
from evaluation.probabilities import sigmoid
from models import inference
from reproduce import RunError

PHANTOMS = "drawn phantoms"
Select = Callable[[np.ndarray, np.ndarray, float], float]
History = Sequence[dict[str, Any]]


# The parts of a row


class Targets(NamedTuple):
    """The labels of all images, as a row is trained and as it is scored."""

    learnt: np.ndarray  # (images, outputs), in [0, 1] or NaN where unknown
    truth: np.ndarray  # (images, labels), 0, 1 or NaN


@dataclass(frozen=True)
class Task:
    """The labels that a row learns, and how its targets follow from the released labels."""

    labels: Sequence[str]  # as they are scored
    targets: Callable[[pd.DataFrame], Targets]
    outputs: int = 0  # of the network; 0: one per label

    @property
    def width(self) -> int:
        """Return the number of outputs of the network."""
        return self.outputs or len(self.labels)


def plain(**settings: Any) -> Any:
    """Build a backbone with pooling and one linear head."""
    return models.classifier.build(**settings)


@dataclass(frozen=True)
class Network:
    """The network of a row. `build` gets all other fields and returns linear logits."""

    backbone: str
    size: int  # pixels per side of the images it sees
    weights: str  # "imagenet", "none" or a file
    precision: str = "float32"
    build: Callable[..., Any] = plain


def mean_auc(
    truth: np.ndarray, probabilities: np.ndarray, loss: float, columns: Sequence[int] | None = None
) -> float:
    """Return the exact mean AUC of all labels or of some; Keras' metric is of binned scores."""
    if columns is not None:
        truth, probabilities = truth[:, columns], probabilities[:, columns]
    return float(metrics.macro_mean(metrics.auroc(truth, probabilities)))


def lowest_loss(truth: np.ndarray, probabilities: np.ndarray, loss: float) -> float:
    """Return the negative validation loss, so that the epoch with the lowest loss is kept."""
    return -loss


def never_stop(history: History) -> bool:
    """Train all epochs, without early stopping."""
    return False


def not_trained(epoch: int, history: History) -> float:
    """Return the learning rate of a row that is not trained."""
    return 0.0


@dataclass(frozen=True)
class Fit:
    """How a row is trained."""

    epochs: int  # 0: not trained; the weights that it starts from are read in another way
    learning_rate: Callable[[int, History], float]  # of an epoch, given the epochs before
    batch_size: int
    select: Select = mean_auc  # score of an epoch on validation images; the highest is kept
    augment: Augment = AS_STORED  # of training images, after the crop to the network's size
    stop: Callable[[History], bool] = never_stop  # early stopping
    head_only: bool = False  # all layers but the last keep the weights that they started with
    features_once: bool = False  # with head_only: compute the last layer's inputs once per image
    weight_decay: float = 0.0  # decoupled from the gradient, as in AdamW
    reseed: int = 0  # added to the run's seed: the same network, initialised and shuffled anew

    def without_training(self) -> "Fit":
        """Return the fit of a row that only reads the weights of another row."""
        return Fit(epochs=0, learning_rate=not_trained, batch_size=self.batch_size)


@dataclass(frozen=True)
class Readout:
    """How a network's outputs become probabilities."""

    probabilities: Callable[[np.ndarray], np.ndarray] = sigmoid  # of logits, one per label
    passes: Callable[..., np.ndarray] = inference.single_pass  # over the test images


def bce(train: np.ndarray, labels: str = "sum") -> Any:
    """Return binary cross-entropy over the known labels of each image."""
    return losses.masking.MaskedBCE(labels)


@dataclass(frozen=True)
class Row:
    """One trained network of a table."""

    name: str
    task: Task
    loss: Callable[..., Any]  # (training targets) -> a Keras loss on logits
    fit: Fit
    network: Network
    readout: Readout = Readout()
    start_from: str = ""  # the row whose best weights it starts from
    centre: bool = False  # sees the centre of each image where the script cuts by a template
    note: str = dataclasses.field(default="", compare=False)  # printed under the tables


def stack_means(*parts: Predictions) -> np.ndarray:
    """Return the mean of each part as one member; the mean of all members is the combination."""
    return np.stack([part.mean for part in parts])


@dataclass(frozen=True)
class Combined:
    """A row computed from the predictions of others: an ensemble, a fusion, another reading."""

    name: str
    of: Sequence[str]
    combine: Callable[..., np.ndarray] = stack_means  # Predictions -> (members, images, labels)
    note: str = dataclasses.field(default="", compare=False)


AnyRow = TypeVar("AnyRow", bound=Row | Combined)


# Rows of a table


def wanted(rows: Sequence[Row | Combined], names: Sequence[str] | None) -> list[Row | Combined]:
    """Return the rows asked for and those that they need, in the script's order."""
    by_name = {row.name: row for row in rows}
    if not names:
        return list(rows)
    # a row's own name may have a comma
    given = [[text] if text in by_name else text.split(",") for text in names]
    asked, needed = [name.strip() for texts in given for name in texts], set()
    while asked:
        if (name := asked.pop()) not in by_name:
            raise RunError(f"There is no row {name!r}; the rows are {', '.join(by_name)}.")
        needed.add(name)
        asked += parents(by_name[name])
    return [row for row in rows if row.name in needed]


def parents(row: Row | Combined) -> list[str]:
    """Return the names of the rows whose weights or predictions a row needs."""
    if isinstance(row, Combined):
        return list(row.of)
    return [row.start_from] if row.start_from else []


# Identity: equal descriptions are the same row


def describe(value: Any) -> Any:
    """Return a row, or a part of one, as JSON values.

    Notes and fields with their default value are left out, so a new field changes no identity.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [describe(each) for each in value]
    if isinstance(value, functools.partial) and not value.args:
        constants = {name: describe(each) for name, each in sorted(value.keywords.items())}
        return {"function": describe(value.func), **constants}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        described = {"type": type(value).__name__}
        for field in dataclasses.fields(value):
            if not field.compare:
                continue
            part = describe(getattr(value, field.name))
            if field.default is dataclasses.MISSING or part != describe(field.default):
                described[field.name] = part
        return described
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return value.__qualname__
    raise TypeError(
        f"{value!r} is not data: in a row, use a plain value, a frozen dataclass, or a named "
        "function with its constants given by name in functools.partial"
    )


# The images, and a row on them with one seed


@dataclass
class Data:
    """The images that a script runs on, decoded once."""

    frame: pd.DataFrame  # image_path, patient_id, split, labels as released
    cache: Cache | None  # None: nothing was decoded
    facts: dict[str, Any]  # what the runs record about the data
    not_comparable: str | None = None  # why results cannot be compared with published ones
    folder: str = ""  # of the dataset
    resized: int = 0  # pixels per side of a decoded image, before a template cuts it
    template: np.ndarray | None = None
    centre: Callable[[], "Data"] | None = None  # the same images cut at the centre
    note: str = ""  # what to know about every number on these images
    _targets: dict[str, Targets] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def dataset(self) -> str:
        """Return the name of the dataset, such as plco."""
        return str(self.facts["dataset"])

    @property
    def pixels(self) -> Cache:
        """Return the decoded images."""
        assert self.cache is not None
        return self.cache

    @property
    def phantom(self) -> bool:
        """Return True if the images are synthetic radiographs."""
        return self.not_comparable == PHANTOMS

    def of_set(self, name: str) -> np.ndarray:
        """Return (images,) bool: the images of a set."""
        in_set: np.ndarray = (self.frame["split"] == name).to_numpy()
        return in_set

    def seen_by(self, row: Row | Combined) -> "Data":
        """Return the images that a row sees: these, or the same cut at the centre."""
        return self.centre() if isinstance(row, Row) and row.centre and self.centre else self

    def targets(self, task: Task) -> Targets:
        """Return a task's targets of all images, computed once for all rows that share them."""
        key = json.dumps(describe(task.targets), sort_keys=True)
        if key not in self._targets:
            self._targets[key] = task.targets(self.frame)
        return self._targets[key]


class Run(NamedTuple, Generic[AnyRow]):
    """A row with one seed, and its folder."""

    row: AnyRow
    seed: int
    folder: Path
    settings: dict[str, Any]  # everything that decides its numbers
    digest: str = ""  # of the settings; "" for predictions of somebody else
    truth: dict[str, str] = {}  # set -> digest of its images and truth  # noqa: RUF012

    @property
    def name(self) -> str:
        """Return the row and seed in words."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Return True if the run has predicted the test set."""
        return (self.folder / "predictions.npz").exists()
