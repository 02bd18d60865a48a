"""The networks below the head: name -> how to build it, what it expects to see, where it looks.

Importing this module does not import Keras, so `--help` can list the names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import ModelError

# Gray pixels 0..255 become `pixel * scale + offset` per channel, as each network was trained.
# The three modes are keras.applications' own; gray is repeated, so RGB or BGR only orders these.
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

    network: Callable  # (normalised image, weights file or None) -> feature map
    pixels: tuple[tuple[float, ...], tuple[float, ...]]  # (scale, offset), one a channel
    size: int  # pixels a side, as published
    smallest: int  # pixels a side that still leave a feature map
    parameters: int  # without a head, moving statistics included
    feature_layer: str = "features"  # the last map before pooling
    imagenet_file: str | None = None  # what keras.applications downloads


def build(name: str, image, weights: str = "none"):
    """Feature map (batch, h, w, channels) of a gray image (batch, size, size, 1) of 0..255.

    `weights` is "imagenet", "none", or the path of a keras.applications file without top.
    """
    import keras

    backbone = find(name)
    size = min(side for side in image.shape[1:3])
    if size < backbone.smallest:
        raise ModelError(
            f"{name} needs images of at least {backbone.smallest} px, these have {size}: "
            f"use --size {backbone.size} (published) or another --backbone."
        )
    scale, offset = backbone.pixels
    x = image
    if len(scale) > 1:
        x = keras.layers.Concatenate(name="repeat")([x] * len(scale))
    # float32 whatever the precision: 255 gray levels do not fit bfloat16's eight bits after scaling
    x = keras.layers.Rescaling(scale, offset, name="normalize", dtype="float32")(x)
    file = None if weights == "none" else _weights_file(name, weights)
    x = backbone.network(x, file)
    # One name for every network: some of keras.applications' last layers are numbered as built.
    return keras.layers.Activation("linear", name="features")(x)


def find(name: str) -> Backbone:
    """The entry of a name, or the list of names there are."""
    if name not in BACKBONES:
        raise ModelError(f"There is no backbone {name!r}: choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def _weights_file(name: str, weights: str) -> str:
    """The existing file that `weights` means; nothing is downloaded here but by Keras' own."""
    if weights != "imagenet":
        if not Path(weights).is_file():
            raise ModelError(
                f"There is no weights file {weights}: give an existing file, imagenet or none."
            )
        return weights
    backbone = find(name)
    if backbone.imagenet_file is None:
        raise ModelError(
            f"Keras publishes no ImageNet weights for {name}: "
            "use --weights none, or --weights FILE with weights of your own."
        )
    return weights


def _application(name: str, file: str) -> Callable:
    """A network of keras.applications, built on our normalised image so that the graph is flat."""

    def network(image, weights):
        import keras

        builder = getattr(keras.applications, name)
        if weights != "imagenet":
            model = builder(include_top=False, weights=None, input_tensor=image)
            if weights:
                _load(model, weights, name)
            return model.output
        try:
            return builder(include_top=False, weights="imagenet", input_tensor=image).output
        except Exception as error:  # get_file raises bare Exception for a failed download
            home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
            raise ModelError(
                f"The ImageNet weights of {name} could not be fetched ({error}): "
                f"place {file} in {home / 'models'}, or start from scratch with --weights none."
            ) from error

    return network


def _load(model, file: str, name: str) -> None:
    try:
        model.load_weights(file)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{file} does not hold weights of {name} without its top ({reason}): "
            "give the file that belongs to this backbone, or use --weights none."
        ) from error


def _own(draw: Callable) -> Callable:
    """A network written here; a file must hold weights of exactly these layers."""

    def network(image, weights):
        import keras

        features = draw(image)
        if weights:
            _load(keras.Model(image, features), weights, draw.__name__)
        return features

    return network


def resnet18(x):
    """ResNet-18 (He et al. 2016), padded and normalised as in the widely used ImageNet weights."""
    x = _convolution(x, 64, 7, 2, "conv1")
    x = _relu(x, "conv1")
    x = _pad(x, 1, "pool1")
    from keras.layers import Add, MaxPooling2D

    x = MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, channels in enumerate((64, 128, 256, 512), start=2):
        for block in (1, 2):
            name = f"conv{stage}_block{block}"
            stride = 2 if stage > 2 and block == 1 else 1
            shortcut = x
            if x.shape[-1] != channels:
                shortcut = _convolution(x, channels, 1, stride, f"{name}_0")
            y = _relu(_convolution(x, channels, 3, stride, f"{name}_1"), f"{name}_1")
            y = _convolution(y, channels, 3, 1, f"{name}_2")
            x = _relu(Add(name=f"{name}_add")([shortcut, y]), name)
    return x


def _convolution(x, channels: int, kernel: int, stride: int, name: str):
    from keras.layers import BatchNormalization, Conv2D

    x = Conv2D(
        channels,
        kernel,
        strides=stride,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(_pad(x, kernel // 2, name))
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _pad(x, width: int, name: str):
    """Zeros on both sides: "same" would put them to the right only where the stride is 2."""
    from keras.layers import ZeroPadding2D

    return ZeroPadding2D(width, name=f"{name}_pad")(x) if width else x


def _relu(x, name: str):
    from keras.layers import Activation

    return Activation("relu", name=f"{name}_relu")(x)


def tiny(x):
    """A small DenseNet for demonstrations and tests.

    Moving statistics follow in tens of steps (momentum 0.9), because short runs have few.
    """
    from keras.layers import AveragePooling2D, BatchNormalization, Concatenate, Conv2D

    def layer(x, channels, kernel, name):
        x = _relu(BatchNormalization(momentum=0.9, name=f"{name}_bn")(x), name)
        return Conv2D(
            channels,
            kernel,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)

    x = Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    for block, depth in enumerate((2, 4, 4), start=1):
        if block > 1:
            x = layer(x, x.shape[-1] // 2, 1, f"pool{block}")
            x = AveragePooling2D(2, name=f"pool{block}")(x)
        for step in range(1, depth + 1):
            name = f"block{block}_layer{step}"
            x = Concatenate(name=f"{name}_concat")([x, layer(x, 16, 3, name)])
    return _relu(BatchNormalization(momentum=0.9, name="last_bn")(x), "last")


def _published(
    name: str, size: int, smallest: int, parameters: int, pixels, file: str, **kwargs
) -> Backbone:
    return Backbone(
        network=_application(name, file),
        pixels=pixels,
        size=size,
        smallest=smallest,
        parameters=parameters,
        imagenet_file=file,
        **kwargs,
    )


def _keras_file(name: str) -> str:
    return f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"


BACKBONES: dict[str, Backbone] = {
    "densenet121": _published("DenseNet121", 224, 32, 7_037_504, TORCH, _keras_file("densenet121")),
    "densenet169": _published(
        "DenseNet169", 224, 32, 12_642_880, TORCH, _keras_file("densenet169")
    ),
    "densenet201": _published(
        "DenseNet201", 224, 32, 18_321_984, TORCH, _keras_file("densenet201")
    ),
    "resnet50": _published("ResNet50", 224, 32, 23_587_712, CAFFE, _keras_file("resnet50")),
    "vgg16": _published(
        "VGG16", 224, 32, 14_714_688, CAFFE, _keras_file("vgg16"), feature_layer="block5_conv3"
    ),
    "xception": _published("Xception", 299, 71, 20_861_480, SYMMETRIC, _keras_file("xception")),
    "inceptionresnetv2": _published(
        "InceptionResNetV2",
        299,
        75,
        54_336_736,
        SYMMETRIC,
        _keras_file("inception_resnet_v2"),
    ),
    "nasnetlarge": _published(
        "NASNetLarge", 331, 32, 84_916_818, SYMMETRIC, "nasnet_large_no_top.h5"
    ),
    "resnet18": Backbone(_own(resnet18), TORCH, 224, 32, 11_186_112),
    "tiny": Backbone(_own(tiny), SYMMETRIC_GRAY, 64, 16, 81_920),
}
