"""Test the classifier: float32 logits, heads, precisions and weights of other runs."""

import keras
import numpy as np
import pytest

from models import ModelError, classifier

GRAY = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1)).astype("uint8")


def outputs(model: keras.Model, layer: str) -> np.ndarray:
    return np.asarray(keras.Model(model.input, model.get_layer(layer).output)(GRAY))


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16", "float16"])
def test_logits_are_float32_in_every_precision(precision):
    before = keras.config.dtype_policy().name
    model = classifier.build("tiny", 5, 32, precision=precision)
    assert keras.config.dtype_policy().name == before
    logits = model(GRAY)
    assert model.output_names == ["logits"]
    assert logits.shape == (4, 5)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    computed = keras.backend.standardize_dtype(model.get_layer("stem_conv").compute_dtype)
    assert computed == (precision or "float32")
    assert all(weight.dtype == "float32" for weight in model.weights)


def test_integer_and_float_images_are_one():
    model = classifier.build("tiny", 5, 32)
    np.testing.assert_array_equal(model(GRAY), model(GRAY.astype("float32")))
    assert not np.array_equal(model(GRAY), model(GRAY + np.float32(0.5)))  # nothing is truncated


@pytest.mark.parametrize(("pooling", "reduce"), [("avg", np.mean), ("max", np.max)])
def test_linear_head(pooling, reduce):
    model = classifier.build("tiny", 5, 32, pooling=pooling)
    kernel, bias = model.get_layer("logits").get_weights()
    bias[:] = np.arange(5)
    model.get_layer("logits").set_weights([kernel, bias])
    expected = reduce(outputs(model, "features"), axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(model(GRAY), expected, rtol=1e-5, atol=1e-5)


def test_asadi2025_head():
    model = classifier.build("tiny", 21, 32, head="asadi2025", dropout=0.5)
    tail = [layer.name for layer in model.layers][-7:]
    assert tail == ["features", "head_conv", "head_bn", "pool", "head_dense", "dropout", "logits"]
    assert model.get_layer("head_conv").kernel.shape[:2] == (3, 3)
    assert outputs(model, "head_conv").min() == 0
    assert outputs(model, "head_dense").shape == (4, 128)
    assert model.get_layer("dropout").rate == 0.5


def test_dropout_only_where_asked():
    names = [layer.name for layer in classifier.build("tiny", 5, 32).layers]
    assert "dropout" not in names


def test_weights_pass_between_runs(tmp_path):
    path = str(tmp_path / "best.weights.h5")
    source = classifier.build("tiny", 5, 32, dropout=0.2)
    source.save_weights(path)
    built = classifier.build("tiny", 5, 64, weights=path)  # size and dropout carry no weights
    loaded = classifier.build("tiny", 5, 32)
    assert not np.array_equal(loaded(GRAY), source(GRAY))
    classifier.load_weights(loaded, path)
    np.testing.assert_array_equal(loaded(GRAY), source(GRAY))
    for got, wanted in zip(built.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "best.weights.h5"
    classifier.build("tiny", 5, 32).save_weights(path)
    other = classifier.build("tiny", 6, 32)
    before = other.get_weights()
    with pytest.raises(ModelError, match="does not fit tiny with 6 labels"):
        classifier.load_weights(other, path)
    for got, wanted in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ModelError, match="does not fit resnet18 with 5 labels"):
        classifier.build("resnet18", 5, 32, weights=str(path))
    content = path.read_bytes()
    for damaged in (content[:1000], content[:-1], content[:8] + b"junk" * 1000, b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="is damaged or cut short: copy it again, or delete"):
            classifier.load_weights(other, path)
        with pytest.raises(ModelError, match=r"damaged or cut short|does not contain the weights"):
            classifier.build("tiny", 5, 32, weights=str(path))
    for got, wanted in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ModelError, match="There is no weights file"):
        classifier.load_weights(other, tmp_path / "none.weights.h5")


def test_errors_name_the_choice():
    with pytest.raises(ModelError, match="no precision 'half': choose one of float32, bfloat16"):
        classifier.build("tiny", 5, precision="half")
    with pytest.raises(ModelError, match="no head 'big': choose one of linear, asadi2025"):
        classifier.build("tiny", 5, head="big")
    with pytest.raises(ModelError, match="no pooling 'sum': choose one of avg, max"):
        classifier.build("tiny", 5, pooling="sum")
