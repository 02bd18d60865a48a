"""A backbone, pooling and linear float32 logits: one flat functional graph for every paper."""

from contextlib import contextmanager
from pathlib import Path

import keras

from models import ModelError, backbones
from models.fast import use_fast_layers

PRECISIONS = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}


def build(
    backbone: str,
    labels: int,
    size: int | None = None,
    weights: str = "none",
    *,
    dropout: float = 0.0,
    pooling: str = "avg",
    head: str = "linear",
    precision: str | None = None,
    fast: bool = True,
) -> keras.Model:
    """Gray images (batch, size, size, 1) of 0..255, integer or float -> `logits` (batch, labels).

    `weights`: "imagenet", "none", a keras.applications file without top (.h5), or the
    .weights.h5 of another run of the same architecture. `size` None is the published one.
    """
    size = size or backbones.find(backbone).size
    own = weights.endswith(".weights.h5")
    with policy(precision):
        image = keras.Input((size, size, 1), dtype="float32", name="image")
        features = backbones.build(backbone, image, "none" if own else weights)
        model = keras.Model(image, HEADS[head](features, labels, pooling, dropout), name=backbone)
    if own:
        load_weights(model, weights)
    if fast:
        use_fast_layers(model)
    return model


def linear_head(features, labels: int, pooling: str, dropout: float):
    """Pooled features -> logits; pooled in float32, because a mean of bfloat16 loses digits."""
    pools = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    x = pools[pooling](name="pool", dtype="float32")(features)  # (batch, channels)
    return _logits(x, labels, dropout)


def asadi2025_head(features, labels: int, pooling: str, dropout: float):
    """The head of Asadi's released code: a convolution and a hidden layer before the logits."""
    x = keras.layers.Conv2D(512, 3, activation="relu", padding="same", name="head_conv")(features)
    x = keras.layers.BatchNormalization(name="head_bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    x = keras.layers.Dense(128, activation="relu", name="head_dense", dtype="float32")(x)
    return _logits(x, labels, dropout)


HEADS = {"linear": linear_head, "asadi2025": asadi2025_head}


def _logits(x, labels: int, dropout: float):
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(x)
    # float32: sigmoid of half-precision logits makes ties, and ties move AUC
    return keras.layers.Dense(labels, name="logits", dtype="float32")(x)


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Weights of another run of the same architecture; anything else is refused, never skipped."""
    if not Path(path).is_file():
        raise ModelError(f"There is no weights file {path}: give the best weights of another run.")
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{path} does not fit {model.name} with {model.output.shape[-1]} labels ({reason}): "
            "weights can be taken over only between runs with the same backbone, head and labels."
        ) from error


@contextmanager
def policy(precision: str | None):
    """Layers made inside compute in this precision; None leaves Keras' own setting."""
    if precision is None:
        yield
        return
    if precision not in PRECISIONS:
        raise ModelError(
            f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}."
        )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
