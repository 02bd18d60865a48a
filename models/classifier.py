"""Build classifiers: a backbone, pooling and float32 logits in one flat functional graph."""

import warnings
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras

from models import ModelError, backbones
from models.fast import use_fast_layers
from models.weights import UNREADABLE

HEAD_MAP = "head_conv"  # the last feature map of asadi2025's head, top_conv2d in the release
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build(
    backbone: str,
    labels: int,
    size: int | None = None,
    weights: str = "none",
    *,
    normalise: str = "network",
    dropout: float = 0.0,
    precision: str | None = None,
    pooling: str = "avg",
    head: str = "linear",
    fast: bool = True,
    frame: int = 0,
) -> keras.Model:
    """Return a network from gray images (batch, size, size, 1), 0..255, to (batch, labels) logits.

    Without `size`, the published size is used. `weights` is "imagenet", "none", a file of the
    backbone without its top, or the whole .weights.h5 of another run with this network and labels.
    `normalise` is "network" (as its ImageNet weights expect) or "imagenet" (mean and deviation).
    With `frame`, smaller images stand in the middle of a gray square of so many pixels.
    """
    for what, name, names in (
        ("precision", precision, (None, *PRECISIONS)),
        ("pooling", pooling, POOLINGS),
        ("head", head, HEADS),
    ):
        if name not in names:
            raise ModelError(
                f"There is no {what} {name!r}: choose one of {', '.join(filter(None, names))}."
            )
    size = size or backbones.find(backbone).size
    whole = _holds_logits(weights)
    with computing_in(precision):
        image = keras.Input((size, size, 1), dtype="float32", name="image")
        own = "none" if whole else weights
        features = backbones.build(backbone, image, own, normalise, frame)
        model = keras.Model(image, HEADS[head](features, labels, pooling, dropout), name=backbone)
    if whole:
        load_weights(model, weights)
    if fast:
        use_fast_layers(model)
    return model


def linear_head(features, labels: int, pooling: str, dropout: float):
    """Return logits of the pooled features, in float32 because sums of bfloat16 lose digits."""
    return _logits(POOLINGS[pooling](name="pool", dtype="float32")(features), labels, dropout)


def asadi2025_head(features, labels: int, pooling: str, dropout: float):
    """Return logits of Asadi's released head: a convolution and a hidden layer before them."""
    x = keras.layers.Conv2D(512, 3, padding="same", activation="relu", name=HEAD_MAP)(features)
    x = keras.layers.BatchNormalization(name="head_bn")(x)
    x = POOLINGS[pooling](name="pool", dtype="float32")(x)
    x = keras.layers.Dense(128, activation="relu", name="head_dense", dtype="float32")(x)
    return _logits(x, labels, dropout)


def _logits(x, labels: int, dropout: float):
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(x)
    # float32: half-precision scores have ties, which change an AUC
    return keras.layers.Dense(labels, name="logits", dtype="float32")(x)


POOLINGS = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
HEADS = {"linear": linear_head, "asadi2025": asadi2025_head}


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Load all weights of a run of the same network; if the file does not fit, change nothing."""
    if not Path(path).is_file():
        raise ModelError(f"There is no weights file {path}: give the weights of a finished run.")
    _open(path)
    before = model.get_weights()  # Keras fills layers until the first that does not fit
    try:
        with warnings.catch_warnings(action="ignore"):  # one per layer
            model.load_weights(path)
    except UNREADABLE as error:
        model.set_weights(before)
        raise ModelError(
            f"{path} does not fit {model.name} with {model.output.shape[-1]} labels: weights are "
            "exchangeable only between runs with the same --backbone, head and labels."
        ) from error


def _holds_logits(weights: str) -> bool:
    """Return True if a weights file is of a whole classifier, not of a backbone without top."""
    return h5py.is_hdf5(weights) and "layers/dense" in _open(weights)


def _open(path: str | Path) -> set[str]:
    """Read all groups and arrays of a weights file and return their names."""
    names: set[str] = set()

    def read(name, entry):
        names.add(name)
        if isinstance(entry, h5py.Dataset):
            entry[()]

    try:
        with h5py.File(path) as file:
            file.visititems(read)
    except UNREADABLE as error:
        raise ModelError(
            f"{path} is damaged or cut short: copy it again, or delete the folder of the run that "
            "wrote it and rerun the command."
        ) from error
    return names


@contextmanager
def computing_in(precision: str | None):
    """Make new layers compute in `precision` within the context; None keeps Keras' setting."""
    before = keras.config.dtype_policy()
    if precision is not None:
        keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
