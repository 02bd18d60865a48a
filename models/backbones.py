"""The networks below the head: name -> how to build it, what it expects to see, where it looks.

Importing this module does not import Keras, so that `--help` can list the names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import ModelError

# Gray pixels 0..255 become `pixel * scale + offset` per channel, as each network was trained.
# These are keras.applications' three modes. Gray is repeated: RGB or BGR only orders the offsets.
TORCH = (
    tuple(1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)),
    tuple(-m / d for m, d in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)),
)
CAFFE = ((1.0, 1.0, 1.0), (-103.939, -116.779, -123.68))
SYMMETRIC = ((1 / 127.5,) * 3, (-1.0,) * 3)
SYMMETRIC_GRAY = ((1 / 127.5,), (-1.0,))


@dataclass(frozen=True)
class Backbone:
    """One network: its layers, its input range, its sizes and what Grad-CAM looks at."""

    network: Callable  # (normalised image, None | "imagenet" | file) -> feature map
    pixels: tuple[tuple[float, ...], tuple[float, ...]]  # (scale, offset), one value a channel
    size: int  # pixels a side, as published
    smallest: int  # pixels a side that the network can still halve to a feature map
    parameters: int  # without a head, moving statistics included
    feature_layer: str = "features"  # what Grad-CAM weighs; "features" is the map before pooling


def find(name: str) -> Backbone:
    """The entry of a name; a wrong name is answered with those there are."""
    if name not in BACKBONES:
        raise ModelError(f"There is no backbone {name!r}: choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def build(name: str, image, weights: str = "none"):
    """Feature map (batch, h, w, channels) of gray images (batch, size, size, 1) of 0..255.

    `weights` is "imagenet", "none", or a file with weights of this network without its top.
    """
    import keras

    backbone = find(name)
    if min(image.shape[1:3]) < backbone.smallest:
        raise ModelError(
            f"{name} needs images of at least {backbone.smallest} px: "
            f"use --size {backbone.size} (as published), or another --backbone."
        )
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ModelError(
            f"There is no weights file {weights}: give an existing file, imagenet or none."
        )
    scale, offset = backbone.pixels
    x = keras.layers.Concatenate(name="repeat")([image] * len(scale)) if len(scale) > 1 else image
    # float32 whatever the precision: bfloat16 cannot tell 255 gray levels apart
    x = keras.layers.Rescaling(scale, offset, name="normalize", dtype="float32")(x)
    x = backbone.network(x, None if weights == "none" else weights)
    # One name for every network: some of keras.applications' last layers are numbered as built.
    return keras.layers.Activation("linear", name="features")(x)


def _application(name: str, file: str) -> Callable:
    """A network of keras.applications, built upon the normalised image: the graph stays flat."""

    def network(image, weights):
        import keras

        builder = getattr(keras.applications, name)
        if weights != "imagenet":
            return _load(builder(include_top=False, weights=None, input_tensor=image), weights)
        try:
            return builder(include_top=False, weights="imagenet", input_tensor=image).output
        except Exception as error:  # Keras raises bare Exception for a failed download
            home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
            raise ModelError(
                f"The ImageNet weights of {name} could not be fetched ({_reason(error)}): "
                f"place {file} in {home / 'models'}, or start from scratch with --weights none."
            ) from error

    return network


def _drawn(draw: Callable, preset: str | None = None) -> Callable:
    """A network written here; `preset` is its twin in keras-hub, layer by layer the same."""

    def network(image, weights):
        import keras

        source = keras.utils.get_source_inputs(image)
        model = keras.Model(source, draw(image), name=draw.__name__)
        if weights != "imagenet":
            return _load(model, weights)
        if preset is None:
            raise ModelError(
                f"There are no ImageNet weights for {draw.__name__}: use --weights none."
            )
        try:
            import keras_hub

            twin = keras_hub.models.Backbone.from_preset(preset)
        except Exception as error:  # not installed, or any of several downloaders' errors
            raise ModelError(
                f"The ImageNet weights of {draw.__name__} are keras-hub's and could not be "
                f"fetched ({_reason(error)}): pip install keras-hub, or download model.weights.h5 "
                f"of {preset} and give it with --weights FILE, or use --weights none."
            ) from error
        model.set_weights(twin.get_weights())
        return model.output

    return network


def _load(model, file: str | None):
    """The model's output, with its weights read from a file if one is given."""
    if file is not None:
        try:
            model.load_weights(file)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{file} does not hold the weights of {model.name} without its top "
                f"({_reason(error)}): give this network's file, or use --weights none."
            ) from error
    return model.output


def _reason(error: Exception) -> str:
    """The first line of an error, to stand inside a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def resnet18(x):
    """ResNet-18 (He et al. 2016), padded and normalised as in its common ImageNet weights."""
    return _residual(x, stages=(64, 128, 256, 512), blocks=2, kernel=7)


def tiny_residual(x):
    """A small ResNet for demonstrations and tests."""
    return _residual(x, stages=(16, 32, 64), blocks=1, kernel=3)


def tiny_residual_deep(x):
    """The same with twice the blocks."""
    return _residual(x, stages=(16, 32, 64), blocks=2, kernel=3)


def tiny_separable(x):
    """A small ResNet of depthwise and pointwise convolutions, in the manner of Xception."""
    return _residual(x, stages=(24, 48, 96), blocks=1, kernel=3, separable=True)


def _residual(x, stages, blocks, kernel, separable=False):
    """Stages of two-convolution blocks; a 7 x 7 stem is pooled, as in He et al."""
    from keras import layers

    def convolution(x, channels, kernel, stride, name):
        if kernel > 1:  # on both sides: "same" pads only the right where the stride is 2
            x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        kind, initializer = layers.Conv2D, {"kernel_initializer": "he_normal"}
        if separable and kernel > 1 and x.shape[-1] > 1:
            kind, initializer = layers.SeparableConv2D, {"pointwise_initializer": "he_normal"}
        x = kind(
            channels, kernel, strides=stride, use_bias=False, name=f"{name}_conv", **initializer
        )(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)

    x = convolution(x, stages[0], kernel, 2, "conv1")
    x = layers.Activation("relu", name="conv1_relu")(x)
    if kernel == 7:
        x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
        x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, channels in enumerate(stages, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            stride = 2 if block == 1 and stage > 2 else 1
            shortcut = convolution(x, channels, 1, 2, f"{name}_0") if stride == 2 else x
            x = convolution(x, channels, 3, stride, f"{name}_1")
            x = layers.Activation("relu", name=f"{name}_1_relu")(x)
            x = convolution(x, channels, 3, 1, f"{name}_2")
            x = layers.Add(name=f"{name}_add")([shortcut, x])
            x = layers.Activation("relu", name=f"{name}_relu")(x)
    return x


def tiny_plain(x):
    """A small VGG for demonstrations and tests: convolutions and pooling, no normalisation."""
    from keras import layers

    for block, (depth, channels) in enumerate(((1, 16), (1, 32), (2, 48), (2, 64)), start=1):
        if block > 1:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        for step in range(1, depth + 1):
            x = layers.Conv2D(
                channels,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"block{block}_conv{step}",
            )(x)
    return x


def tiny(x):
    """A small DenseNet for demonstrations and tests."""
    return _dense(x, depths=(1, 4, 4), growth=16)


def tiny_deep(x):
    """The same with more and narrower layers."""
    return _dense(x, depths=(2, 5, 7), growth=10)


def tiny_wide(x):
    """The same with fewer and wider layers."""
    return _dense(x, depths=(2, 2, 3), growth=24)


def _dense(x, depths, growth):
    """Blocks of layers that see the outputs of all before them, halved in between.

    The moving statistics follow within tens of steps (momentum 0.9): short runs have few.
    """
    from keras import layers

    def convolution(x, channels, kernel, name):
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        return layers.Conv2D(
            channels,
            kernel,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)

    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    for block, depth in enumerate(depths, start=1):
        if block > 1:
            x = convolution(x, x.shape[-1] // 2, 1, f"transition{block}")
            x = layers.AveragePooling2D(2, name=f"transition{block}_pool")(x)
        for step in range(1, depth + 1):
            name = f"block{block}_layer{step}"
            x = layers.Concatenate(name=f"{name}_concat")([x, convolution(x, growth, 3, name)])
    x = layers.BatchNormalization(momentum=0.9, name="last_bn")(x)
    return layers.Activation("relu", name="last_relu")(x)


def _published(name: str, file: str, *facts, **more) -> Backbone:
    return Backbone(_application(name, file), *facts, **more)


_FILE = "{}_weights_tf_dim_ordering_tf_kernels_notop.h5"
# pixels, size, smallest, parameters: as keras.applications documents them
BACKBONES: dict[str, Backbone] = {
    "densenet121": _published(
        "DenseNet121", _FILE.format("densenet121"), TORCH, 224, 32, 7_037_504
    ),
    "densenet169": _published(
        "DenseNet169", _FILE.format("densenet169"), TORCH, 224, 32, 12_642_880
    ),
    "densenet201": _published(
        "DenseNet201", _FILE.format("densenet201"), TORCH, 224, 32, 18_321_984
    ),
    "resnet18": Backbone(_drawn(resnet18, preset="resnet_18_imagenet"), TORCH, 224, 32, 11_186_112),
    "resnet50": _published("ResNet50", _FILE.format("resnet50"), CAFFE, 224, 32, 23_587_712),
    "vgg16": _published(
        # 14 x 14 before the last pooling: the 7 x 7 after it is coarse for a heatmap
        "VGG16",
        _FILE.format("vgg16"),
        CAFFE,
        224,
        32,
        14_714_688,
        feature_layer="block5_conv3",
    ),
    "xception": _published("Xception", _FILE.format("xception"), SYMMETRIC, 299, 71, 20_861_480),
    "inceptionresnetv2": _published(
        "InceptionResNetV2", _FILE.format("inception_resnet_v2"), SYMMETRIC, 299, 75, 54_336_736
    ),
    "nasnetlarge": _published(
        "NASNetLarge", "nasnet_large_no_top.h5", SYMMETRIC, 331, 32, 84_916_818
    ),
    "tiny": Backbone(_drawn(tiny), SYMMETRIC_GRAY, 64, 16, 68_656),
    "tiny_deep": Backbone(_drawn(tiny_deep), SYMMETRIC_GRAY, 64, 16, 67_856),
    "tiny_wide": Backbone(_drawn(tiny_wide), SYMMETRIC_GRAY, 64, 16, 80_336),
    "tiny_separable": Backbone(_drawn(tiny_separable), SYMMETRIC_GRAY, 64, 16, 28_800),
    "tiny_plain": Backbone(_drawn(tiny_plain), SYMMETRIC_GRAY, 64, 16, 104_096),
    "tiny_residual_deep": Backbone(_drawn(tiny_residual_deep), SYMMETRIC_GRAY, 64, 16, 175_440),
    "tiny_residual": Backbone(_drawn(tiny_residual), SYMMETRIC_GRAY, 64, 16, 77_776),
}
