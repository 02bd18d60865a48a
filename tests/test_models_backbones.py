"""Test every backbone: its parameters, its input range and one training step."""

import contextlib
import importlib

import keras
import numpy as np
import pytest

from models import ModelError, backbones
from models.backbones import BACKBONES
from models.weights import IMAGENET

# Where keras.applications keeps the preprocessing that each network was trained with.
KERAS_MODULE = {
    **dict.fromkeys(("densenet121", "densenet169", "densenet201"), "densenet"),
    "resnet18": "densenet",  # the same ImageNet mean and deviation
    "resnet50": "resnet",
    "vgg16": "vgg16",
    "vgg16_hidden": "vgg16",
    "xception": "xception",
    "inceptionresnetv2": "inception_resnet_v2",
    "nasnetlarge": "nasnet",
}


def built(name: str, weights: str = "none", size: int | None = None, **more) -> keras.Model:
    side = size or BACKBONES[name].smallest
    image = keras.Input((side, side, 1), dtype="float32")
    return keras.Model(image, backbones.build(name, image, weights, **more))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (entry.parameters > 1e8))
        for name, entry in BACKBONES.items()
    ],
)
def test_every_backbone(name):
    """Build the network once and check parameters, flatness, input range and one step."""
    entry, model = BACKBONES[name], built(name)
    assert model.count_params() == entry.parameters
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert len(model.get_layer(entry.feature_layer).output.shape) == 4

    gray = np.random.default_rng(0).integers(0, 256, (2, entry.smallest, entry.smallest, 1))
    gray[:, 0, 0], gray[:, 0, 1] = 0, 255
    entering = keras.Model(model.input, model.get_layer("normalize").output)
    ours = np.asarray(entering(gray.astype("uint8")))
    np.testing.assert_array_equal(ours, entering(gray.astype("float32")))
    if name not in IMAGENET:
        assert (ours.min(), ours.max(), ours.shape[-1]) == (-1, 1, 1)
    else:
        module = importlib.import_module(f"keras.applications.{KERAS_MODULE[name]}")
        keras_own = module.preprocess_input(np.repeat(gray, 3, -1).astype("float32"))
        np.testing.assert_allclose(ours, keras_own, atol=1e-5)

    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    before = kernels[0].numpy()
    # Eagerly: tracing NASNetLarge takes longer than its step.
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    loss = model.train_on_batch(gray, np.ones((2, *model.output.shape[1:]), "float32"))
    assert np.isfinite(loss)
    assert np.isfinite(kernels[0].numpy()).all()
    assert np.abs(kernels[0].numpy() - before).max() > 0


def test_resnet18_has_the_published_parameters():
    trainable = sum(np.prod(weight.shape) for weight in built("resnet18").trainable_weights)
    assert trainable == 11_689_512 - 512 * 1000 - 1000  # the paper's network less its ImageNet top


def test_resnet18_keeps_the_picture_centred():
    """With padding on both sides, a mirrored image of odd size gives mirrored features."""
    model = built("resnet18", size=33)  # 33 -> 17 -> 9 -> 5 -> 3 -> 2; compare before the last
    rng = np.random.default_rng(0)
    # Symmetric kernels, so that only the padding can tell left from right.
    model.set_weights(
        [
            w + w[:, ::-1] if w.ndim == 4 else rng.uniform(0.5, 1, w.shape)
            for w in model.get_weights()
        ]
    )
    inner = keras.Model(model.input, model.get_layer("conv4_block2_relu").output)
    image = rng.integers(0, 256, (1, 33, 33, 1)).astype("float32")
    plain, mirrored = (np.asarray(inner(x)) for x in (image, image[:, :, ::-1]))
    np.testing.assert_allclose(mirrored[:, :, ::-1], plain, rtol=1e-4, atol=1e-4 * plain.max())


def test_weights_of_a_file_are_taken(tmp_path):
    """Load a keras.applications file, which lacks our first layers."""
    published = keras.applications.DenseNet121(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    published.save(tmp_path / "notop.h5")
    ours = built("densenet121", str(tmp_path / "notop.h5"))
    for got, wanted in zip(ours.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ModelError, match="does not contain the weights of resnet18"):
        built("resnet18", str(tmp_path / "notop.h5"))


def entering(name: str, normalise: str) -> np.ndarray:
    """Return black and white after normalisation, (2, channels)."""
    scale, offset = backbones.pixels_of(name, normalise)
    image = keras.Input((2, 1, 1), dtype="float32")
    x = keras.layers.Concatenate()([image] * len(scale)) if len(scale) > 1 else image
    model = keras.Model(image, keras.layers.Rescaling(scale, offset)(x))
    return np.asarray(model(np.array([0.0, 255.0]).reshape(1, 2, 1, 1)))[0, :, 0]


def test_imagenet_normalisation_for_every_network():
    """Black is -mean / deviation and white (1 - mean) / deviation, per channel."""
    rgb = np.array([[-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64]])
    for name in BACKBONES:
        found = entering(name, "imagenet")
        if name not in IMAGENET:
            np.testing.assert_allclose(found, [[-0.449 / 0.226], [0.551 / 0.226]], atol=1e-4)
        elif name in ("vgg16", "vgg16_hidden", "resnet50"):  # their channels are blue, green, red
            np.testing.assert_allclose(found, rgb[:, ::-1], atol=1e-4)
        else:
            np.testing.assert_allclose(found, rgb, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "tiny", "densenet121"])
def test_the_built_network_normalises_as_asked(name):
    for normalise in backbones.NORMALISE:
        layer = built(name, normalise=normalise).get_layer("normalize")
        pixels = backbones.pixels_of(name, normalise)
        assert (tuple(layer.scale), tuple(layer.offset)) == pixels
    own, imagenet = (backbones.pixels_of(name, normalise) for normalise in backbones.NORMALISE)
    assert (own == imagenet) == (name == "densenet121")  # DenseNet's weights expect it anyway


@pytest.mark.parametrize(
    ("text", "resnet18", "vgg16"),
    [
        ("imagenet", "imagenet", "imagenet"),
        ("none", "none", "none"),
        ("some/file.h5", "some/file.h5", "some/file.h5"),
        ("resnet18=none,vgg16=imagenet", "none", "imagenet"),
        ("imagenet,resnet18=/d/a.h5", "/d/a.h5", "imagenet"),
        (" resnet18=a=b.h5 , none", "a=b.h5", "none"),
    ],
)
def test_weights_by_backbone(text, resnet18, vgg16):
    assert backbones.weights_of(text, "resnet18") == resnet18
    assert backbones.weights_of(text, "vgg16") == vgg16


def test_weights_by_backbone_of_odd_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a,vgg16=b.h5").touch()
    for text in ("~/a,vgg16=b.h5", str(tmp_path / "a,vgg16=b.h5")):
        assert backbones.weights_of(text, "vgg16") == str(tmp_path / "a,vgg16=b.h5")
    (tmp_path / "c.h5").touch()
    assert backbones.weights_of("vgg16=~/c.h5", "vgg16") == str(tmp_path / "c.h5")
    for odd in ("~nobody-of-this-name/a.h5", "a" * 300, "a\0b"):
        assert backbones.weights_of(odd, "vgg16") == odd
        with pytest.raises(ModelError, match="There is no weights file"):
            built("vgg16", odd)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet18=none", "has nothing for vgg16: add vgg16=imagenet, vgg16=none or vgg16=FILE"),
        ("resnet19=none,none", "no backbone 'resnet19': choose one of densenet121"),
        ("vgg16=none,vgg16=imagenet", "vgg16 is given twice"),
        ("vgg16=", "a value is missing"),
        ("", "a value is missing"),
        ("imagenet,", "a value is missing"),
        ("imagenet,none", "a value for all networks is given twice"),
    ],
)
def test_weights_by_backbone_refused(text, message):
    with pytest.raises(ModelError, match=message):
        backbones.weights_of(text, "vgg16")


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])  # Keras 3's layout, and the one before
def test_damaged_weights_files_are_one_sentence(suffix, tmp_path):
    """Refuse truncated files, junk after HDF5's signature, changed bytes, text and folders."""
    name, whole, broken = "tiny_plain", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    model = built(name)
    (model.save_weights if suffix == ".weights.h5" else model.save)(whole)
    content, random = whole.read_bytes(), np.random.default_rng(0)
    junk = random.bytes(5000)
    cases = [b"", content[:8] + junk, b"weights,1\n2,3\n", content[:-1]]
    cases += [content[:length] for length in random.integers(9, len(content), 6)]
    for case in cases:
        broken.write_bytes(case)
        with pytest.raises(ModelError, match=r"does not contain the weights of .* without its top"):
            built(name, str(broken))
    for _ in range(15):  # a changed name or size is refused, a changed number cannot be known
        at = int(random.integers(0, 4000))
        broken.write_bytes(content[:at] + random.bytes(4) + content[at + 4 :])
        with contextlib.suppress(ModelError):
            built(name, str(broken))
    with pytest.raises(ModelError, match="There is no weights file"):
        built(name, str(tmp_path))


def test_errors_name_the_choice():
    with pytest.raises(ModelError, match=r"no backbone 'resnet19'.*densenet121, .*tiny"):
        backbones.find("resnet19")
    with pytest.raises(ModelError, match="xception needs images of at least 71 px: use --size 299"):
        built("xception", size=70)
    with pytest.raises(ModelError, match="There is no weights file nowhere"):
        built("tiny", "nowhere.h5")
    with pytest.raises(ModelError, match="no normalisation 'zero': choose one of network, image"):
        built("tiny", normalise="zero")


def test_a_frame_is_gray_around_the_image():
    """A 3 x 3 image in a frame of 16: 6 pixels before it, 7 behind, 0 after normalising."""
    image = keras.Input((3, 3, 1), dtype="float32")
    model = keras.Model(image, backbones.build("tiny", image, frame=16))
    framed = keras.Model(model.input, model.get_layer("frame").output)
    shown = np.asarray(framed(np.full((1, 3, 3, 1), 255.0)))[0, :, :, 0]
    assert shown.shape == (16, 16)
    np.testing.assert_array_equal(shown[6:9, 6:9], 1)
    assert shown.sum() == 9
    with pytest.raises(ModelError, match="at least 16 px"):
        backbones.build("tiny", image)


def test_the_cifar_form_keeps_small_images_large():
    """A 28-pixel image is 28, 14, 7 and 4 pixels wide in the four stages."""
    for name, blocks in (("resnet18_cifar", (2, 2, 2, 2)), ("resnet50_cifar", (3, 4, 6, 3))):
        model = built(name, size=28)
        sides = [
            model.get_layer(f"conv{stage}_block{count}_relu").output.shape[1]
            for stage, count in enumerate(blocks, start=2)
        ]
        assert sides == [28, 14, 7, 4]
