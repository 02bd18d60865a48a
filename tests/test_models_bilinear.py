"""Test bilinear pooling against the literal outer product, and the networks with it."""

import keras
import numpy as np
import pytest
from keras import ops

from models import ModelError, bilinear
from tests.gradients import values_and_gradients


def features(batch=2, positions=6, channels=(4, 5), seed=0):
    generator = np.random.default_rng(seed)
    return [np.maximum(generator.normal(size=(batch, positions, d)), 0) for d in channels]


def literal(first, second):
    """Compute eq. (4) as printed: the mean of the outer products of all positions."""
    products = first[..., :, None] * second[..., None, :]  # (batch, positions, d1, d2)
    return products.mean(axis=1).reshape(len(first), -1)


def finite_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient


def test_one_matrix_product_is_the_mean_of_outer_products():
    first, second = features()
    np.testing.assert_allclose(
        ops.convert_to_numpy(bilinear.outer(first, second)), literal(first, second)
    )


def test_the_layer_is_the_printed_chain():
    maps = [f.reshape(2, 2, 3, -1).astype(np.float32) for f in features()]
    pooled = literal(*(m.reshape(2, 6, -1) for m in maps))
    rooted = np.sign(pooled) * np.sqrt(np.abs(pooled))
    expected = rooted / np.linalg.norm(rooted, axis=1, keepdims=True)
    layer = bilinear.BilinearPooling()
    found = ops.convert_to_numpy(layer(maps))
    np.testing.assert_allclose(found, expected, atol=2e-4)  # the root is smoothed near 0
    assert layer.compute_output_shape([m.shape for m in maps]) == found.shape


@pytest.mark.parametrize("own", [False, True], ids=["two streams", "with itself"])
@pytest.mark.parametrize("sketch", [0, 16])
def test_gradients_are_those_of_finite_differences(own, sketch):
    first, second = (0.5 + f for f in features())  # away from 0, where the root bends sharply
    weights = np.random.default_rng(1).normal(size=(2, sketch or (16 if own else 20)))
    layer = bilinear.BilinearPooling(sketch)
    layer.build([(2, 2, 3, 4), (2, 2, 3, 4 if own else 5)])

    def loss(x):
        x = ops.reshape(x, first.shape)
        pair = (x, x if own else ops.convert_to_tensor(second, dtype="float64"))
        if sketch:
            hashes = [(buckets, signs.astype(np.float64)) for buckets, signs in layer.hashes]
            pooled = bilinear.sketched(*pair, hashes, sketch)
        else:
            pooled = bilinear.outer(*pair)
        return ops.sum(bilinear.unit(bilinear.signed_root(pooled)) * weights, axis=-1)

    _, gradients = values_and_gradients(loss, first)
    numeric = finite_differences(lambda x: float(ops.sum(loss(ops.convert_to_tensor(x)))), first)
    np.testing.assert_allclose(gradients, numeric, rtol=1e-3, atol=1e-5)
    assert np.all(np.abs(gradients) > 0)


def test_the_sketch_is_that_of_the_outer_product():
    first, second = features(channels=(7, 5))
    layer = bilinear.BilinearPooling(sketch=9, seed=3)
    layer.build([(2, 2, 3, 7), (2, 2, 3, 5)])
    (buckets1, signs1), (buckets2, signs2) = layer.hashes
    expected = np.zeros((2, 9))
    products = literal(first, second).reshape(2, 7, 5)
    for i in range(7):
        for j in range(5):
            bucket = (buckets1[i] + buckets2[j]) % 9
            expected[:, bucket] += signs1[i] * signs2[j] * products[:, i, j]
    hashes = [(buckets, signs.astype(np.float64)) for buckets, signs in layer.hashes]
    found = ops.convert_to_numpy(bilinear.sketched(first, second, hashes, 9))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_sketches_keep_inner_products_on_average():
    one, other = (features(batch=1, channels=(6, 6), seed=seed) for seed in (1, 2))
    exact = float((literal(*one) * literal(*other)).sum())
    kept = []
    for seed in range(120):
        layer = bilinear.BilinearPooling(sketch=64, seed=seed)
        layer.build([(1, 2, 3, 6)] * 2)
        hashes = [(buckets, signs.astype(np.float64)) for buckets, signs in layer.hashes]
        a, b = (ops.convert_to_numpy(bilinear.sketched(*pair, hashes, 64)) for pair in (one, other))
        kept.append((a * b).sum())
    error = np.std(kept) / np.sqrt(len(kept))
    assert abs(np.mean(kept) - exact) < 4 * error
    assert error < 0.1 * exact


def test_root_and_length_are_finite_at_zero():
    zeros = np.zeros((2, 4), np.float32)
    values, gradients = values_and_gradients(
        lambda x: ops.sum(bilinear.unit(bilinear.signed_root(x)), axis=-1), zeros
    )
    np.testing.assert_array_equal(values, 0)
    assert np.isfinite(gradients).all()
    x = np.array([[-4.0, -1e-3, 0.0, 1e-3, 4.0]])
    values, gradients = values_and_gradients(lambda y: bilinear.signed_root(y)[0], x)
    np.testing.assert_allclose(values, np.sign(x[0]) * np.sqrt(np.abs(x[0])), rtol=1e-5)
    np.testing.assert_allclose(gradients[0, [0, -1]], 0.25, rtol=1e-5)
    assert gradients[0, 2] == pytest.approx(bilinear.SMOOTH**-0.5)


def test_a_saved_layer_keeps_its_sketch():
    layer = bilinear.BilinearPooling(sketch=8, seed=5, name="bilinear")
    again = bilinear.BilinearPooling.from_config(layer.get_config())
    maps = [f.reshape(2, 2, 3, -1).astype(np.float32) for f in features()]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(maps)), ops.convert_to_numpy(again(maps))
    )


def built(backbone="tiny_residual", **options):
    return bilinear.build(backbone, 3, 32, projection=8, **options)


@pytest.fixture(scope="module")
def two_streams():
    keras.utils.set_random_seed(0)
    return built(streams=2)


def images(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 1)).astype("uint8")


def test_two_streams_start_alike_and_train_apart(two_streams):
    ours = {layer.name: layer for layer in two_streams.layers}
    pairs = [(ours[name], ours[f"second_{name}"]) for name in ours if f"second_{name}" in ours]
    convolutions = [pair for pair in pairs if isinstance(pair[0], keras.layers.Conv2D)]
    assert len(convolutions) == 9
    for one, other in convolutions:
        np.testing.assert_array_equal(one.kernel, other.kernel)
    assert not any(isinstance(layer, keras.Model) for layer in two_streams.layers)  # flat
    outputs = ops.convert_to_numpy(two_streams(images()))
    assert outputs.shape == (4, 9)
    assert outputs.dtype == np.float32

    from losses.multilabel_softmax import FineGrained

    two_streams.compile("adam", FineGrained(), run_eagerly=True)
    two_streams.train_on_batch(images(), np.eye(4, 3, dtype="float32"))
    for one, other in convolutions:
        assert np.abs(np.asarray(one.kernel) - np.asarray(other.kernel)).max() > 0


@pytest.mark.parametrize(("alpha", "beta", "moved"), [(1.0, 0.0, "12"), (0.0, 1.0, "12b")])
def test_each_loss_reaches_its_own_part(alpha, beta, moved):
    from losses.multilabel_softmax import FineGrained

    model = built(streams=2)
    names = {"1": "conv1_conv", "2": "second_conv1_conv", "b": "projection"}
    before = {part: np.asarray(model.get_layer(name).kernel).copy() for part, name in names.items()}
    model.compile("adam", FineGrained(alpha, beta), run_eagerly=True)
    model.train_on_batch(images(), np.eye(4, 3, dtype="float32"))
    for part, name in names.items():
        assert (np.asarray(model.get_layer(name).kernel) != before[part]).any() == (part in moved)


def test_frozen_streams_stay_while_the_rest_learns():
    model = built(streams=2, frozen=True)
    parts = [layer for layer in model.layers if "conv" in layer.name or "bn" in layer.name]
    before = [np.asarray(weight) for layer in parts for weight in layer.weights]
    head = np.asarray(model.get_layer("projection").kernel).copy()
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(images(), np.zeros((4, 9), "float32"))
    after = [np.asarray(weight) for layer in parts for weight in layer.weights]
    assert len(before) > 20
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)  # moving statistics too
    assert (np.asarray(model.get_layer("projection").kernel) != head).any()


def test_wide_maps_are_reduced_and_sketches_need_not_be():
    assert built("tiny", reduce=16).get_layer("projection").kernel.shape[0] == 16 * 16
    assert built("tiny_residual", reduce=64).get_layer("projection").kernel.shape[0] == 64 * 64
    sketched = built("tiny", reduce=16, sketch=40)
    assert sketched.get_layer("projection").kernel.shape[0] == 40
    assert "stream1_reduce" not in {layer.name for layer in sketched.layers}
    whole = built("tiny")  # nothing is reduced unless asked: 104² products
    assert whole.get_layer("projection").kernel.shape[0] == 104 * 104


def test_reductions_start_equal_and_train_apart():
    from losses.multilabel_softmax import FineGrained

    model = built("tiny", streams=2, reduce=16)

    def reductions():
        return [model.get_layer(f"stream{number}_reduce").get_weights() for number in (1, 2)]

    for one, other in zip(*reductions(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(reductions()[0][0]).max() > 0
    model.compile("adam", FineGrained(), run_eagerly=True)
    model.train_on_batch(images(), np.eye(4, 3, dtype="float32"))
    assert np.abs(reductions()[0][0] - reductions()[1][0]).max() > 0


@pytest.mark.parametrize(
    ("backbone", "pooled"),
    [
        ("resnet18", (1, 1, 512)),
        ("vgg16", (2, 2, 512)),  # before the last max-pooling
        ("densenet121", (1, 1, 1024)),
    ],
)
def test_the_papers_networks_have_two_streams(backbone, pooled):
    model = bilinear.build(backbone, 3, 32, streams=2, projection=4, reduce=8)
    assert model.output.shape == (None, 9)
    for stream in ("stream1", "stream2"):
        assert model.get_layer(f"{stream}_reduce").input.shape[1:] == pooled


def test_streams_normalise_as_asked():
    for normalise, scale in (("network", 1 / 127.5), ("imagenet", 1 / (255 * 0.226))):
        layer = built(normalise=normalise).get_layer("normalize")
        np.testing.assert_allclose(layer.scale, scale)


def test_one_stream_gives_logits_and_three_are_refused():
    assert built().output.shape == (None, 3)
    with pytest.raises(ModelError, match="1 or 2 streams, not 3"):
        built(streams=3)
