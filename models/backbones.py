"""Build the backbones, with the pixel range that each expects and its layer for Grad-CAM.

Importing this module does not import Keras, so that `--help` can list the names.
"""

import functools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import ModelError, torchvision
from models.weights import UNREADABLE, existing, fetch, first_line

# Normalisation: gray pixels 0..255 become `pixel * scale + offset`, with one value per channel. The
# gray channel is repeated, so the order of channels (RGB or BGR) only orders these values.
Pixels = tuple[tuple[float, ...], tuple[float, ...]]


def _standardised(means: tuple[float, ...], deviations: tuple[float, ...]) -> Pixels:
    scale = tuple(1 / (255 * deviation) for deviation in deviations)
    return scale, tuple(-m / d for m, d in zip(means, deviations, strict=True))


# The three modes of keras.applications: ImageNet's mean and deviation, its mean alone, -1 to 1.
TORCH = _standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # RGB
TORCH_BGR = _standardised((0.406, 0.456, 0.485), (0.225, 0.224, 0.229))
TORCH_GRAY = _standardised((0.449,), (0.226,))  # the means over the three channels
CAFFE = ((1.0, 1.0, 1.0), (-103.939, -116.779, -123.68))  # BGR
SYMMETRIC = ((1 / 127.5,) * 3, (-1.0,) * 3)
SYMMETRIC_GRAY = ((1 / 127.5,), (-1.0,))
# ImageNet's mean and deviation in the channel order of a network with another normalisation
IMAGENET_INSTEAD_OF = {SYMMETRIC: TORCH, SYMMETRIC_GRAY: TORCH_GRAY, CAFFE: TORCH_BGR, TORCH: TORCH}
NORMALISE = ("network", "imagenet")


@dataclass(frozen=True)
class Backbone:
    """A backbone: its layers, its normalisation, its sizes and the layer for Grad-CAM."""

    network: Callable  # (normalised image, None | weights file) -> feature map
    pixels: Pixels  # the normalisation of its ImageNet weights
    size: int  # width and height in pixels, as published
    smallest: int  # least width and height in pixels
    parameters: int  # without a head, including moving statistics
    feature_layer: str = "features"  # for Grad-CAM; "features" is the map before pooling


def find(name: str) -> Backbone:
    """Return the backbone of this name; raise ModelError with all names if there is none."""
    if name not in BACKBONES:
        raise ModelError(f"There is no backbone {name!r}: choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def weights_of(text: str, backbone: str) -> str:
    """Return the value of --weights for one network: "imagenet", "none" or a file.

    imagenet                   for all networks
    resnet18=FILE,vgg16=none   per network
    imagenet,resnet18=FILE     per network, and imagenet for all others
    """
    if text in ("imagenet", "none"):
        return text
    if file := existing(text):  # its name may contain commas and equals signs
        return str(file)
    by_name: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not re.fullmatch(r"\w+", name):
            name, value = "", part.strip()
        if name:
            find(name)
        if not value or name in by_name:
            fault = "a value is missing"
            if value:
                fault = f"{name or 'a value for all networks'} is given twice"
            raise ModelError(
                f"--weights {text}: {fault}; "
                "give imagenet, none or a file, for all networks or as NAME=VALUE,NAME=VALUE."
            )
        by_name[name] = value
    chosen = by_name.get(backbone, by_name.get(""))
    if chosen is None:
        raise ModelError(
            f"--weights {text} has nothing for {backbone}: add {backbone}=imagenet, "
            f"{backbone}=none or {backbone}=FILE."
        )
    return chosen if chosen in ("imagenet", "none") else str(existing(chosen) or chosen)


def pixels_of(name: str, normalise: str = "network") -> Pixels:
    """Return the normalisation (scale, offset) of a network's input, one value per channel.

    "network" is what its own ImageNet weights expect; "imagenet" is ImageNet's mean and deviation.
    """
    if normalise not in NORMALISE:
        raise ModelError(
            f"There is no normalisation {normalise!r}: choose one of {', '.join(NORMALISE)}."
        )
    own = find(name).pixels
    return own if normalise == "network" else IMAGENET_INSTEAD_OF[own]


def build(name: str, image, weights: str = "none", normalise: str = "network", frame: int = 0):
    """Return the feature map (batch, h, w, channels) of gray images (batch, size, size, 1), 0..255.

    `weights` is "imagenet", "none", or a file with the weights of this network without its top.
    A smaller image stands in the middle of a `frame` of so many pixels, which is 0 after the
    normalisation, the gray of the mean.
    """
    import keras

    backbone = find(name)
    margin = max(0, frame - image.shape[1])
    if image.shape[1] + margin < backbone.smallest:
        raise ModelError(
            f"{name} needs images of at least {backbone.smallest} px: "
            f"use --size {backbone.size} (as published), or another --backbone."
        )
    scale, offset = pixels_of(name, normalise)
    file = fetch(name, weights)
    x = keras.layers.Concatenate(name="repeat")([image] * len(scale)) if len(scale) > 1 else image
    # float32 at any precision: bfloat16 cannot represent 256 gray levels
    x = keras.layers.Rescaling(scale, offset, name="normalize", dtype="float32")(x)
    if margin:
        sides = (margin // 2, margin - margin // 2)
        x = keras.layers.ZeroPadding2D((sides, sides), name="frame")(x)
    x = backbone.network(x, file)
    # One name for all networks: keras.applications numbers some last layers.
    return keras.layers.Activation("linear", name="features")(x)


def _application(name: str) -> Callable:
    """Return a builder of a keras.applications network on the normalised image, as a flat graph."""

    def network(image, file):
        import keras

        builder = getattr(keras.applications, name)
        return _load(builder(include_top=False, weights=None, input_tensor=image), file)

    return network


def _vgg16_hidden(image, file):
    """Return the outputs of VGG-16's two hidden layers of 4,096 units as a map of 1 x 1 pixels."""
    import keras

    whole = keras.applications.VGG16(weights=None, input_tensor=image)
    _load(whole, file)
    hidden = whole.get_layer("fc2").output
    return keras.layers.Reshape((1, 1, hidden.shape[-1]), name="hidden")(hidden)


def _written_here(layers: Callable) -> Callable:
    """Return a builder of a network whose layers are defined in this file."""

    def network(image, file):
        import keras

        source = keras.utils.get_source_inputs(image)
        return _load(keras.Model(source, layers(image), name=layers.__name__), file)

    return network


def _load(model, file: Path | None):
    """Return the output of a model after loading its weights from a file, if one is given."""
    if file is None:
        return model.output
    try:
        if file.suffix == ".safetensors":
            torchvision.load_resnet(model, file)
        else:
            with warnings.catch_warnings(action="ignore"):  # one per layer
                model.load_weights(file)
    except UNREADABLE as error:
        raise ModelError(
            f"{file} does not contain the weights of {model.name} without its top "
            f"({first_line(error)}): give this network's file, whole, or use --weights none."
        ) from error
    return model.output


def resnet18(x):
    """ResNet-18 (He et al. 2016), with the layers of torchvision, whose weights it can load."""
    return _residual(x, stages=(64, 128, 256, 512), blocks=2, kernel=7)


def tiny_residual(x):
    """A small ResNet for demonstrations and tests."""
    return _residual(x, stages=(16, 32, 64), blocks=1, kernel=3)


def tiny_residual_deep(x):
    """`tiny_residual` with twice as many blocks."""
    return _residual(x, stages=(16, 32, 64), blocks=2, kernel=3)


def tiny_separable(x):
    """A small ResNet of depthwise and pointwise convolutions, similar to Xception."""
    return _residual(x, stages=(24, 48, 96), blocks=1, kernel=3, separable=True)


def resnet18_cifar(x):
    """ResNet-18 for small images, as Yang et al. 2023 train it: a 3 x 3 stem without pooling."""
    return _residual_cifar(x, blocks=(2, 2, 2, 2), kernels=(3, 3), widening=1)


def resnet50_cifar(x):
    """ResNet-50 for small images, as Yang et al. 2023 train it: a 3 x 3 stem without pooling."""
    return _residual_cifar(x, blocks=(3, 4, 6, 3), kernels=(1, 3, 1), widening=4)


def _residual_cifar(x, blocks, kernels, widening):
    """Stack four stages of residual blocks; the first keeps the size of the image.

    `kernels` are the convolutions of a block, the last of which is `widening` times as wide.
    """
    from keras import layers

    x = layers.Activation("relu", name="conv1_relu")(_convolution(x, 64, 3, 1, "conv1"))
    for stage, count in enumerate(blocks, start=2):
        channels = 64 * 2 ** (stage - 2)
        for block in range(1, count + 1):
            name = f"conv{stage}_block{block}"
            stride = 2 if block == 1 and stage > 2 else 1
            shortcut = x
            if stride > 1 or x.shape[-1] != widening * channels:
                shortcut = _convolution(x, widening * channels, 1, stride, f"{name}_0")
            for number, kernel in enumerate(kernels, start=1):
                last = number == len(kernels)
                step = stride if kernel == 3 and number == kernels.index(3) + 1 else 1
                width = widening * channels if last else channels
                x = _convolution(x, width, kernel, step, f"{name}_{number}")
                if not last:
                    x = layers.Activation("relu", name=f"{name}_{number}_relu")(x)
            x = layers.Add(name=f"{name}_add")([shortcut, x])
            x = layers.Activation("relu", name=f"{name}_relu")(x)
    return x


def _convolution(x, channels, kernel, stride, name, separable=False):
    """Convolve with padding on both sides, and normalise."""
    from keras import layers

    if kernel > 1:  # "same" pads only the right side at stride 2
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    kind, initializer = layers.Conv2D, {"kernel_initializer": "he_normal"}
    if separable and kernel > 1 and x.shape[-1] > 1:
        kind, initializer = layers.SeparableConv2D, {"pointwise_initializer": "he_normal"}
    x = kind(channels, kernel, strides=stride, use_bias=False, name=f"{name}_conv", **initializer)(
        x
    )
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _residual(x, stages, blocks, kernel, separable=False):
    """Stack stages of blocks with two convolutions; a 7 x 7 stem is pooled, as in He et al."""
    from keras import layers

    convolution = functools.partial(_convolution, separable=separable)
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
    """`tiny` with more and narrower layers."""
    return _dense(x, depths=(2, 5, 7), growth=10)


def tiny_wide(x):
    """`tiny` with fewer and wider layers."""
    return _dense(x, depths=(2, 2, 3), growth=24)


def _dense(x, depths, growth):
    """Stack dense blocks: a layer sees the outputs of all layers of its block.

    The map is halved between blocks. With momentum 0.9 the moving statistics converge within tens
    of steps, which suits short runs.
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


# pixels, size, smallest, parameters: as documented by keras.applications
BACKBONES: dict[str, Backbone] = {
    "densenet121": Backbone(_application("DenseNet121"), TORCH, 224, 32, 7_037_504),
    "densenet169": Backbone(_application("DenseNet169"), TORCH, 224, 32, 12_642_880),
    "densenet201": Backbone(_application("DenseNet201"), TORCH, 224, 32, 18_321_984),
    "resnet18": Backbone(_written_here(resnet18), TORCH, 224, 32, 11_186_112),
    "resnet50": Backbone(_application("ResNet50"), CAFFE, 224, 32, 23_587_712),
    "vgg16": Backbone(
        *(_application("VGG16"), CAFFE, 224, 32, 14_714_688),
        feature_layer="block5_conv3",  # 14 x 14; the map after the last pooling is 7 x 7
    ),
    "vgg16_hidden": Backbone(
        *(_vgg16_hidden, CAFFE, 224, 224, 134_260_544), feature_layer="block5_conv3"
    ),
    "xception": Backbone(_application("Xception"), SYMMETRIC, 299, 71, 20_861_480),
    "inceptionresnetv2": Backbone(
        _application("InceptionResNetV2"), SYMMETRIC, 299, 75, 54_336_736
    ),
    "nasnetlarge": Backbone(_application("NASNetLarge"), SYMMETRIC, 331, 32, 84_916_818),
    "resnet18_cifar": Backbone(_written_here(resnet18_cifar), SYMMETRIC_GRAY, 28, 16, 11_177_280),
    "resnet50_cifar": Backbone(_written_here(resnet50_cifar), SYMMETRIC_GRAY, 28, 16, 23_552_320),
    "tiny": Backbone(_written_here(tiny), SYMMETRIC_GRAY, 64, 16, 68_656),
    "tiny_deep": Backbone(_written_here(tiny_deep), SYMMETRIC_GRAY, 64, 16, 67_856),
    "tiny_wide": Backbone(_written_here(tiny_wide), SYMMETRIC_GRAY, 64, 16, 80_336),
    "tiny_separable": Backbone(_written_here(tiny_separable), SYMMETRIC_GRAY, 64, 16, 28_800),
    "tiny_plain": Backbone(_written_here(tiny_plain), SYMMETRIC_GRAY, 64, 16, 104_096),
    "tiny_residual": Backbone(_written_here(tiny_residual), SYMMETRIC_GRAY, 64, 16, 77_776),
    "tiny_residual_deep": Backbone(
        _written_here(tiny_residual_deep), SYMMETRIC_GRAY, 64, 16, 175_440
    ),
}
