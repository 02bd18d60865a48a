"""Bilinear networks (Ge et al. 2018, §2.2 and 2.3): second-order features of one or two streams.

    (4)  p = mean over positions of f¹ ⊗ f²,   then p / sqrt|p|,  p / ‖p‖,  1x1 convolution, logits

The mean of outer products is computed as one matrix product, F¹ᵀ F² / positions, which needs no
array of positions x channels². With `sketch`, compact bilinear pooling (Gao et al. 2016) replaces
the channels² products by a count sketch with far fewer dimensions.
"""

import keras
import numpy as np
from keras import ops

from models import ModelError, backbones, classifier
from models.fast import use_fast_layers

SMOOTH = 1e-8  # limits the slope of the root at 0 to 1 / sqrt(SMOOTH)


def outer(first, second):
    """Return the mean outer product of (batch, positions, d¹) and (batch, positions, d²)."""
    products = ops.matmul(ops.transpose(first, (0, 2, 1)), second) / first.shape[1]
    return ops.reshape(products, (-1, first.shape[2] * second.shape[2]))


def sketched(first, second, hashes, dimensions: int):
    """Return the count sketch of `outer`: the product of channels i and j in bucket h¹(i) + h²(j).

    `hashes` are ((h¹, s¹), (h², s²)), one bucket and one sign per channel; the product's sign is
    s¹(i) s²(j). The sketch of an outer product is the convolution of both sketches, computed by
    multiplying their Fourier transforms.
    """
    spectra = []
    for features, (buckets, signs) in zip((first, second), hashes, strict=True):
        by_channel = ops.transpose(features * signs, (2, 0, 1))  # (channels, batch, positions)
        sketch = ops.segment_sum(by_channel, buckets, num_segments=dimensions)
        spectra.append(ops.rfft(ops.transpose(sketch, (1, 2, 0))))
    (a, b), (c, d) = spectra  # real and imaginary parts, (batch, positions, frequencies)
    real, imaginary = (ops.mean(part, axis=1) for part in (a * c - b * d, a * d + b * c))
    return ops.irfft((real, imaginary), fft_length=dimensions)


def signed_root(x):
    """Return sign(x) sqrt|x|, smoothed near 0 so that its gradient is finite."""
    return x / ops.sqrt(ops.abs(x) + SMOOTH)


def unit(x):
    """Return x / ‖x‖; a zero vector stays zero, with a finite gradient."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-12))


@keras.saving.register_keras_serializable(package="models")
class BilinearPooling(keras.layers.Layer):
    """Pool two maps (batch, h, w, channels) to (batch, channels²) of unit length, in float32.

    With `sketch` > 0 the output has that many dimensions, by hashes drawn from `seed`.
    """

    def __init__(self, sketch=0, seed=0, **options):
        super().__init__(**{"dtype": "float32", **options})
        self.sketch, self.seed = sketch, seed

    def build(self, input_shape):
        generator = np.random.default_rng(self.seed)
        self.hashes = [
            (
                generator.integers(0, max(self.sketch, 1), channels).astype(np.int32),
                generator.choice([-1, 1], channels).astype(np.float32),
            )
            for *_, channels in input_shape
        ]

    def call(self, inputs):
        first, second = (ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])) for x in inputs)
        if self.sketch:
            pooled = sketched(first, second, self.hashes, self.sketch)
        else:
            pooled = outer(first, second)
        return unit(signed_root(pooled))

    def compute_output_shape(self, input_shape):
        (*_, first), (*_, second) = input_shape
        return (input_shape[0][0], self.sketch or first * second)

    def get_config(self):
        return {**super().get_config(), "sketch": self.sketch, "seed": self.seed}


def build(
    backbone: str,
    labels: int,
    size: int,
    weights: str = "none",
    *,
    streams: int = 1,
    projection: int = 512,
    reduce: int = 0,
    sketch: int = 0,
    frozen: bool = False,
    normalise: str = "network",
    precision: str | None = None,
    fast: bool = True,
) -> keras.Model:
    """Return a network from gray images (batch, size, size, 1), 0..255, to float32 logits.

    One stream is pooled with itself; the output is (batch, labels). Two streams start as copies;
    the output is (batch, 3 labels): logits of the first stream, of the second, and of both pooled.
    `projection` is the width of the 1x1 convolution. With `reduce`, another 1x1 convolution reduces
    wider maps to that many channels before pooling. `frozen` freezes the streams only.
    """
    if streams not in (1, 2):
        raise ModelError(f"A bilinear network has 1 or 2 streams, not {streams}.")
    with classifier.computing_in(precision):
        image = keras.Input((size, size, 1), dtype="float32", name="image")
        features = backbones.build(backbone, image, weights, normalise)
        parts = [keras.Model(image, features)]
        if streams == 2:
            parts.append(_twin(parts[0], image))
        maps = []
        for number, part in enumerate(parts, start=1):
            part.trainable = not frozen
            x = _last_convolution(part, backbone)
            if reduce and not sketch and x.shape[-1] > reduce:
                x = keras.layers.Conv2D(reduce, 1, name=f"stream{number}_reduce")(x)
            maps.append(x)
        pooled = BilinearPooling(sketch, name="bilinear")([maps[0], maps[-1]])
        pooled = keras.layers.Dense(projection, name="projection", dtype="float32")(pooled)
        outputs = keras.layers.Dense(labels, name="logits", dtype="float32")(pooled)
        if streams == 2:
            alone = [_own_head(part.output, labels, n) for n, part in enumerate(parts, start=1)]
            outputs = keras.layers.Concatenate(name="outputs", dtype="float32")([*alone, outputs])
        model = keras.Model(image, outputs, name=f"{backbone}_bilinear")
    if streams == 2 and any(layer.name == "stream2_reduce" for layer in model.layers):
        # the streams start identical, so their reductions do too
        reduced = model.get_layer("stream1_reduce").get_weights()
        model.get_layer("stream2_reduce").set_weights(reduced)
    if fast:
        use_fast_layers(model)
    return model


def _twin(stream: keras.Model, image) -> keras.Model:
    """Return a copy of a stream with the same weights and other names, on the same image."""

    def renamed(layer):
        return type(layer).from_config({**layer.get_config(), "name": f"second_{layer.name}"})

    twin = keras.models.clone_model(stream, input_tensors=image, clone_function=renamed)
    twin.set_weights(stream.get_weights())
    return twin


def _own_head(features, labels: int, number: int):
    """Return the logits of one stream, for losses that treat the streams separately."""
    pooled = keras.layers.GlobalAveragePooling2D(name=f"stream{number}_pool", dtype="float32")(
        features
    )
    return keras.layers.Dense(labels, name=f"stream{number}_logits", dtype="float32")(pooled)


def _last_convolution(stream: keras.Model, backbone: str):
    """Return the output of the last convolution, before a final max-pooling if there is one."""
    wanted = backbones.find(backbone).feature_layer
    return next(layer for layer in stream.layers if layer.name.endswith(wanted)).output
