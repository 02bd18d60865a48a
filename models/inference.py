"""A network's passes over images: once, with test-time augmentation, with Monte-Carlo dropout.

Networks give logits; they become probabilities here, in float64.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np

from models import ModelError


def logits(model, batches: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """(images, labels) float32 outputs of a Keras model, in the order of the images.

    A smaller last batch is filled up, so that the network is traced once, and cut again.
    """
    parts = []
    for images in batches:
        images = np.asarray(images)
        fill = [(0, batch_size - len(images))] + [(0, 0)] * (images.ndim - 1)
        outputs = model.predict_on_batch(np.pad(images, fill, mode="edge"))
        parts.append(np.asarray(outputs, np.float32)[: len(images)])
    return np.concatenate(parts)


def single_pass(model, batches: Callable, batch_size: int) -> np.ndarray:
    """(1, images, labels): every image as it is. `batches(augment=..., draw=...)` makes batches."""
    return logits(model, batches(), batch_size)[None]


def augmented_passes(augment, draws: int) -> Callable:
    """Test-time augmentation: (draws, images, labels), each image as `augment` changes it."""

    def passes(model, batches: Callable, batch_size: int) -> np.ndarray:
        draws_of_images = (batches(augment=augment, draw=draw) for draw in range(draws))
        return np.stack([logits(model, images, batch_size) for images in draws_of_images])

    return passes


def dropout_passes(passes: int, by_image: bool = False, seed: int = 0) -> Callable:
    """Monte-Carlo dropout: (passes, images, labels), with the Dropout layers active and no other.

    Running a network with training=True would also let its BatchNormalization layers normalise by,
    and learn from, the images. A pass is one drawn network for all images, so what an image gets
    depends on (seed, pass) alone, not on the other images of its batch.

    With `by_image`, as Asadi et al. released it, images go through the network one by one and
    BatchNormalization normalises each by its own statistics; nothing is learnt from them.
    """

    def all_passes(model, batches: Callable, batch_size: int) -> np.ndarray:
        drawn, masks = _always_dropping(model, by_image)

        def batches_of_pass(draw: int):
            for images in batches():
                for part in np.asarray(images)[:, None] if by_image else [images]:
                    for number, mask in enumerate(masks):
                        mask.seed_generator.state.assign([seed * passes + draw, number])
                    yield part

        size = 1 if by_image else batch_size
        return np.stack([logits(drawn, batches_of_pass(draw), size) for draw in range(passes)])

    return all_passes


@functools.lru_cache(maxsize=4)  # a network is traced once, however many times it is asked
def _always_dropping(model, by_image: bool):
    """A network of the same layers and weights that always drops, alike for every image."""
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
            # at momentum 1 the moving statistics stay as they are
            normalised.append((layer, ByImage.from_config(layer.get_config() | {"momentum": 1.0})))
            return normalised[-1][1]
        if not isinstance(layer, keras.layers.Dropout):
            return layer
        shape = (1, *[None] * (len(layer.input.shape) - 1))
        masks.append(Mask(layer.rate, noise_shape=shape, name=layer.name, dtype=layer.dtype_policy))
        return masks[-1]

    bare = keras.Model(model.inputs, model.outputs, name=model.name)  # not compiled
    drawn = keras.models.clone_model(bare, clone_function=share)
    for trained, copy in normalised:
        copy.set_weights(trained.get_weights())
    if not any(mask.rate for mask in masks):
        raise ModelError(
            f"{model.name} has no Dropout layer, so Monte-Carlo dropout has nothing to draw."
        )
    return drawn, masks
