"""Every backbone: its size on paper, the range that enters it, and one step at its smallest."""

import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from models import ModelError, backbones
from models.backbones import BACKBONES

# Where keras.applications keeps the preprocessing that each network was trained with.
KERAS_MODULE = {
    **dict.fromkeys(("densenet121", "densenet169", "densenet201"), "densenet"),
    "resnet18": "densenet",  # the same ImageNet mean and deviation
    "resnet50": "resnet",
    "vgg16": "vgg16",
    "xception": "xception",
    "inceptionresnetv2": "inception_resnet_v2",
    "nasnetlarge": "nasnet",
}


def built(name: str, weights: str = "none", size: int | None = None) -> keras.Model:
    side = size or BACKBONES[name].smallest
    image = keras.Input((side, side, 1), dtype="float32")
    return keras.Model(image, backbones.build(name, image, weights))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone(name):
    """Built once: parameters, flatness, the range entering it, and one step that moves it."""
    entry, model = BACKBONES[name], built(name)
    assert model.count_params() == entry.parameters
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert len(model.get_layer(entry.feature_layer).output.shape) == 4

    gray = np.random.default_rng(0).integers(0, 256, (2, entry.smallest, entry.smallest, 1))
    gray[:, 0, 0], gray[:, 0, 1] = 0, 255
    entering = keras.Model(model.input, model.get_layer("normalize").output)
    ours = np.asarray(entering(gray.astype("uint8")))
    np.testing.assert_array_equal(ours, entering(gray.astype("float32")))
    if name.startswith("tiny"):
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
    """Padding on both sides: a mirrored image gives mirrored features where sizes are odd."""
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
    """A keras.applications file, which knows nothing of our first layers."""
    published = keras.applications.DenseNet121(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    published.save(tmp_path / "notop.h5")
    ours = built("densenet121", str(tmp_path / "notop.h5"))
    for got, wanted in zip(ours.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ModelError, match="does not hold the weights of resnet18"):
        built("resnet18", str(tmp_path / "notop.h5"))


def test_imagenet_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org/w.h5: None -- no network")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ModelError) as raised:
        built("vgg16", "imagenet")
    message = str(raised.value)
    assert "place vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 in" in message
    assert str(tmp_path / "models") in message
    assert "--weights none" in message
    assert "\n" not in message


def test_imagenet_where_keras_has_none():
    with pytest.raises(ModelError, match="no ImageNet weights for tiny: use --weights none"):
        built("tiny", "imagenet")
    try:
        import keras_hub  # noqa: F401
    except ImportError:
        with pytest.raises(ModelError, match="pip install keras-hub, or download"):
            built("resnet18", "imagenet")


def test_errors_name_the_choice():
    with pytest.raises(ModelError, match=r"no backbone 'resnet19'.*densenet121, .*tiny"):
        backbones.find("resnet19")
    with pytest.raises(ModelError, match="xception needs images of at least 71 px: use --size 299"):
        built("xception", size=70)
    with pytest.raises(ModelError, match="There is no weights file nowhere"):
        built("tiny", "nowhere.h5")


def test_the_names_are_listed_without_keras():
    code = "import sys, models.backbones; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
