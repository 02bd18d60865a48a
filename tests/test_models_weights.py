"""Test ImageNet weights: addresses, hashes, the cache and downloads."""

import dataclasses
import hashlib
import importlib
import inspect
import re

import keras
import numpy as np
import pytest

from downloads import DownloadError
from models import ModelError, backbones, torchvision, weights
from models.weights import IMAGENET
from tests.file_server import file_server, unused_address  # noqa: F401
from tests.test_models_backbones import KERAS_MODULE as PREPROCESSING

KERAS_MODULE = {name: each for name, each in PREPROCESSING.items() if name != "resnet18"}


@pytest.fixture
def keras_home(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_every_real_network_has_weights():
    scratch = {name for name in backbones.BACKBONES if name.startswith("tiny")}
    scratch |= {"resnet18_cifar", "resnet50_cifar"}
    assert {*backbones.BACKBONES} - scratch == {*IMAGENET}


@pytest.mark.parametrize("name", KERAS_MODULE)
def test_addresses_and_hashes_are_those_of_keras(name):
    module = importlib.import_module(f"keras.src.applications.{KERAS_MODULE[name]}")
    source = inspect.getsource(module).replace('"\n', "").replace("\n", "")
    source = re.sub(r'" +"', "", re.sub(r'" *"', "", source))
    address = IMAGENET[name].url.rpartition("/")
    assert IMAGENET[name].hash in source
    assert address[0].rpartition("keras-applications/")[2] in source
    if name != "resnet50":  # put together from its name there
        assert re.sub(r"\W", "", address[2]) in re.sub(r"\W", "", source)
        assert re.sub(r"\W", "", IMAGENET[name].file) in re.sub(r"\W", "", source)


def test_weights_are_downloaded_once_and_verified(monkeypatch, keras_home, file_server):  # noqa: F811
    handler, address = file_server
    content = b"weights of a network"
    handler.files = {"/a.h5": content}
    digest = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(IMAGENET, "vgg16", weights.Download("a.h5", f"{address}/a.h5", digest))
    assert weights.find_weights("vgg16", "imagenet") is None
    for _ in range(2):
        assert weights.fetch("vgg16", "imagenet") == keras_home / "a.h5"
    assert weights.find_weights("vgg16", "imagenet").read_bytes() == content
    assert len(handler.asked) == 1

    (keras_home / "a.h5").write_bytes(content[:5])  # a file that another program left unfinished
    assert weights.fetch("vgg16", "imagenet").read_bytes() == content
    assert len(handler.asked) == 2


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_without_a_network_it_says_what_to_do(name, monkeypatch, keras_home):
    url = unused_address() + "/weights"
    monkeypatch.setitem(IMAGENET, name, dataclasses.replace(IMAGENET[name], url=url))
    image = keras.Input((32, 32, 1))
    with pytest.raises(DownloadError) as raised:
        backbones.build(name, image, "imagenet")
    message = str(raised.value)
    assert message.startswith(f"{url} cannot be fetched")
    assert f"Or put it at {keras_home / IMAGENET[name].file} yourself" in message
    assert f"--weights {name}=none" in message
    assert "\n" not in message


def test_what_needs_no_download(keras_home, tmp_path):
    assert weights.fetch("vgg16", "none") is weights.find_weights("vgg16", "none") is None
    file = tmp_path / "own.h5"
    assert weights.find_weights("vgg16", str(file)) is None
    with pytest.raises(ModelError, match="There is no weights file"):
        weights.fetch("vgg16", str(file))
    file.touch()
    assert weights.fetch("vgg16", str(file)) == weights.find_weights("vgg16", str(file)) == file
    with pytest.raises(ModelError, match="no ImageNet weights for tiny: use --weights none"):
        weights.fetch("tiny", "imagenet")


# torchvision's ResNet-18, implemented independently of models/


def torchvision_arrays(seed=0) -> dict[str, np.ndarray]:
    """Return random weights with torchvision's names and shapes."""
    random, arrays = np.random.default_rng(seed), {}

    def convolution(name, outputs, inputs, kernel):
        arrays[f"{name}.weight"] = random.normal(
            0, np.sqrt(2 / (inputs * kernel**2)), (outputs, inputs, kernel, kernel)
        )

    def norm(name, channels):
        for part in ("weight", "running_var"):
            arrays[f"{name}.{part}"] = random.uniform(0.5, 1.5, channels)
        for part in ("bias", "running_mean"):
            arrays[f"{name}.{part}"] = random.normal(0, 0.3, channels)

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    before = 64
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            convolution(f"{name}.conv1", channels, before, 3)
            norm(f"{name}.bn1", channels)
            convolution(f"{name}.conv2", channels, channels, 3)
            norm(f"{name}.bn2", channels)
            if before != channels:
                convolution(f"{name}.downsample.0", channels, before, 1)
                norm(f"{name}.downsample.1", channels)
            before = channels
    arrays["fc.weight"], arrays["fc.bias"] = random.normal(0, 1, (1000, 512)), np.zeros(1000)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def torchvision_features(arrays, x) -> np.ndarray:
    """Compute ResNet-18 in evaluation mode on (images, 3, height, width) in NumPy."""

    def convolve(x, name, stride):
        kernel = arrays[f"{name}.weight"].astype(np.float64)
        pad = kernel.shape[-1] // 2
        x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
        return np.einsum("ncyxij,ocij->noyx", windows[:, :, ::stride, ::stride], kernel)

    def norm(x, name):
        gamma, beta, mean, variance = (
            arrays[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    x = np.maximum(norm(convolve(x, "conv1", 2), "bn1"), 0)
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3)).max(axis=(4, 5))
    x = x[:, :, ::2, ::2]
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = np.maximum(norm(convolve(x, f"{name}.conv1", stride), f"{name}.bn1"), 0)
            y = norm(convolve(y, f"{name}.conv2", 1), f"{name}.bn2")
            if stride == 2:
                x = norm(convolve(x, f"{name}.downsample.0", 2), f"{name}.downsample.1")
            x = np.maximum(x + y, 0)
    return x


def safetensors(arrays) -> bytes:
    """Return the bytes of a .safetensors file, with an integer counter as in torchvision's."""
    import json

    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, array in {**arrays, "bn1.num_batches_tracked": np.int64(7)}.items():
        kind = {"float32": "F32", "int64": "I64"}[str(array.dtype)]
        span = [len(numbers), len(numbers) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        numbers += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + numbers


def test_resnet18_is_torchvisions(tmp_path):
    arrays, file = torchvision_arrays(), tmp_path / "model.safetensors"
    file.write_bytes(safetensors(arrays))
    image = keras.Input((64, 64, 1))
    model = keras.Model(image, backbones.build("resnet18", image, str(file)))
    gray = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 1)).astype("float32")
    means, deviations = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (np.repeat(gray, 3, axis=-1) / 255 - means) / deviations
    wanted = torchvision_features(arrays, normalised.transpose(0, 3, 1, 2))
    wanted = wanted.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(model(gray), wanted, atol=1e-5 * wanted.max())


def test_damaged_safetensors_are_one_sentence(tmp_path):
    file, image = tmp_path / "model.safetensors", keras.Input((32, 32, 1))
    arrays = torchvision_arrays()
    whole = safetensors(arrays)
    headers = int.from_bytes(whole[:8], "little")
    cases = [b"", whole[:5], whole[:100], whole[:-4], whole[: 8 + headers], b"\xff" * 100]
    cases += [(50).to_bytes(8, "little") + b"{" * 50, (2).to_bytes(8, "little") + b"[]"]
    cases.append(safetensors({"conv1.weight": arrays["conv1.weight"]}))  # the rest is missing
    cases.append(safetensors(arrays | {"bn1.bias": np.zeros(65, np.float32)}))
    for content in cases:
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"does not contain the weights of resnet18") as raised:
            backbones.build("resnet18", image, str(file))
        assert "\n" not in str(raised.value)
    file.write_bytes(whole)
    with pytest.raises(ModelError, match="does not contain the weights of densenet121"):
        backbones.build("densenet121", image, str(file))
    with pytest.raises(ModelError, match="does not contain the weights of tiny_residual"):
        backbones.build("tiny_residual", image, str(file))
    assert set(torchvision.read(file)) == set(arrays)
