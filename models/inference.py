"""Passes of a network over images: single, with test-time augmentation, with Monte-Carlo dropout.

A pass function is called as `passes(model, batches, batch_size)` and returns logits of shape
(passes, images, labels). `batches(augment=..., draw=...)` returns an iterable of image batches.
`AugmentedPasses` and `DropoutPasses` are pass functions whose constants are plain fields, so that
two of them can be compared and hashed.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import ModelError


def logits(model, batches: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Return the float32 outputs of a Keras model, (images, labels), in the order of the images.

    A smaller last batch is padded to `batch_size`, so that the network is traced only once, and
    the outputs of the padding are dropped.
    """
    parts = []
    for images in batches:
        images = np.asarray(images)
        padding = [(0, batch_size - len(images))] + [(0, 0)] * (images.ndim - 1)
        outputs = model.predict_on_batch(np.pad(images, padding, mode="edge"))
        parts.append(np.asarray(outputs, np.float32)[: len(images)])
    return np.concatenate(parts)


def single_pass(model, batches: Callable, batch_size: int) -> np.ndarray:
    """Return the logits of one pass over the images as they are, (1, images, labels)."""
    return logits(model, batches(), batch_size)[None]


@dataclass(frozen=True)
class AugmentedPasses:
    """Test-time augmentation: `draws` passes, each over newly augmented images."""

    augment: Any  # data.augment.Augment
    draws: int

    def __call__(self, model, batches: Callable, batch_size: int) -> np.ndarray:
        """Return the logits of every draw, (draws, images, labels)."""
        views = (batches(augment=self.augment, draw=draw) for draw in range(self.draws))
        return np.stack([logits(model, images, batch_size) for images in views])


@dataclass(frozen=True)
class DropoutPasses:
    """Monte-Carlo dropout: `passes` passes with only the Dropout layers in training mode.

    Calling the network with training=True would also make BatchNormalization normalise by the
    statistics of the batch and update its moving averages. Each pass draws one dropout mask and
    applies it to all images, so an image's output depends on (seed, pass) and not on the other
    images of its batch.

    With `by_image`, as in the code that Asadi et al. released, images go through the network one
    at a time and BatchNormalization normalises each image by its own statistics. The moving
    averages are not updated.
    """

    passes: int
    by_image: bool = False
    seed: int = 0

    def __call__(self, model, batches: Callable, batch_size: int) -> np.ndarray:
        """Return the logits of every pass, (passes, images, labels)."""
        dropping, masks = _with_active_dropout(model, self.by_image)
        size = 1 if self.by_image else batch_size
        return np.stack(
            [
                logits(dropping, self._seeded_batches(batches, masks, draw), size)
                for draw in range(self.passes)
            ]
        )

    def _seeded_batches(self, batches: Callable, masks: list, draw: int) -> Iterator[np.ndarray]:
        """Yield the batches of one pass; reset the dropout masks to those of `draw` before each."""
        for images in batches():
            for part in np.asarray(images)[:, None] if self.by_image else [images]:
                for number, mask in enumerate(masks):
                    mask.seed_generator.state.assign([self.seed * self.passes + draw, number])
                yield part


@functools.lru_cache(maxsize=4)  # a network is traced once, however often it is called
def _with_active_dropout(model, by_image: bool):
    """Return a copy of the network whose dropout is always active, and its Dropout layers.

    The copy shares layers and weights with `model`. Its Dropout layers draw one mask for all
    images of a batch.
    """
    import keras

    class ByImage(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=True, mask=mask)

    class Mask(keras.layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    masks, normalised = [], []

    def share(layer):
        if by_image and isinstance(layer, keras.layers.BatchNormalization):
            # with momentum 1 the moving averages stay as they are
            copy = ByImage.from_config(layer.get_config() | {"momentum": 1.0})
            normalised.append((layer, copy))
            return copy
        if isinstance(layer, keras.layers.Dropout):
            shape = (1, *[None] * (len(layer.input.shape) - 1))
            mask = Mask(layer.rate, noise_shape=shape, name=layer.name, dtype=layer.dtype_policy)
            masks.append(mask)
            return mask
        return layer

    uncompiled = keras.Model(model.inputs, model.outputs, name=model.name)
    dropping = keras.models.clone_model(uncompiled, clone_function=share)
    for trained, copy in normalised:
        copy.set_weights(trained.get_weights())
    if not any(mask.rate for mask in masks):
        raise ModelError(
            f"{model.name} has no Dropout layer, so Monte-Carlo dropout would change nothing. "
            "Use a single pass, or a network with dropout."
        )
    return dropping, masks
