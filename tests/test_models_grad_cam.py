"""Test Grad-CAM on hand-worked cases, and on parallel streams."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest

from evaluation import heatmap
from models import ModelError, classifier, grad_cam


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1)).astype(np.uint8)


def test_a_linear_head_gives_the_class_activation_map(images):
    """With average pooling α_k is w_kc / (h w), so the map is Zhou's, up to that factor."""
    model = classifier.build("tiny", 4, 32)
    features = keras.Model(model.input, model.get_layer("features").output)
    maps = keras.ops.convert_to_numpy(features(images.astype("float32")))
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").kernel)
    expected = np.maximum(np.einsum("nhwk,kl->nlhw", maps, kernel)[:, [3, 1]], 0) / 16
    heat = grad_cam.heatmaps(model, images, [3, 1])
    assert heat.shape == (3, 2, 4, 4)
    assert heat.max() > 0
    np.testing.assert_allclose(heat, expected, atol=1e-5 * expected.max())


def test_a_deep_head_gives_the_gradient_that_differences_measure(images):
    keras.utils.set_random_seed(0)
    model = classifier.build("tiny", 3, 32, head="asadi2025", dropout=0.5)
    heat = grad_cam.heatmaps(model, images[:1], [2])[0, 0]
    features = model.get_layer("features").output
    above = keras.Model(features, model.output)
    maps = keras.ops.convert_to_numpy(
        keras.Model(model.input, features)(images[:1].astype("float32"))
    ).astype(np.float64)
    step = 1e-3 * maps.max()
    shifts = step * np.eye(maps.shape[-1])[:, None, None]  # moving a whole map moves the logit
    both = np.concatenate([maps + shifts, maps - shifts]).astype("float32")
    up, down = np.split(above.predict_on_batch(both)[:, 2], 2)
    alpha = (up - down) / (2 * step) / maps[0, ..., 0].size  # by h w α
    expected = np.maximum(maps[0] @ alpha, 0)
    assert expected.max() > 0
    np.testing.assert_allclose(heat, expected, atol=0.1 * expected.max())


def test_layer_may_lie_beside_another_stream(images):
    """Of mean(left · right), α of the left is the mean of the right: exact on every backend."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 1))
    left = keras.layers.Conv2D(2, 3, name="left")(image)
    right = keras.layers.Conv2D(2, 3, name="right")(image)
    product = keras.layers.GlobalAveragePooling2D()(keras.layers.Multiply()([left, right]))
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(product))
    heat = grad_cam.heatmaps(model, images, [1], "left")
    both = keras.Model(image, [left, right])(images.astype("float32"))
    left, right = (keras.ops.convert_to_numpy(maps) for maps in both)
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").kernel)
    alpha = right.mean(axis=(1, 2)) / 30**2 * kernel[:, 1]
    expected = np.maximum(np.einsum("nk,nhwk->nhw", alpha, left), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(heat[:, 0], expected, atol=1e-4 * expected.max())


def test_unknown_layer_is_named(images):
    with pytest.raises(ModelError, match=r"has no layer 'conv9'.*logits"):
        grad_cam.heatmaps(classifier.build("tiny", 1, 32), images, [0], "conv9")


def test_peak_is_the_centre_of_the_largest_cell():
    heat = np.zeros((4, 8))
    heat[3, 1] = 2
    assert heatmap.peak(heat) == (1.5 / 8, 3.5 / 4)
    assert heatmap.peak(np.zeros((4, 8))) is None


def test_overlay_colours_only_what_is_above_the_clip():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 5
    image = np.full((32, 32, 1), 100, np.uint8)
    shown = heatmap.overlay(image, heat)
    assert shown.shape == (32, 32, 3)
    assert (shown[16:, 16:] == 100).all()  # far from the peak: the picture itself
    assert np.ptp(shown[2, 2].astype(int)) > 40  # at the peak: a colour
    assert (heatmap.overlay(image, np.zeros((4, 4))) == 100).all()
    assert heatmap.scaled(heat, 32).max() == 1
    assert heatmap.scaled(heat, 32)[heatmap.scaled(heat, 32) > 0].min() >= 0.5


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend):
    if backend == keras.backend.backend() or importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed, or is what runs anyway")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", "another_stream"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_overlay_has_five_colours_above_half_of_the_maximum():
    """Shares from 0 to 1 in a hundred steps are gray below .5, then one colour per tenth."""
    image, heat = np.full((10, 10), 100, np.uint8), (np.arange(100) / 99).reshape(10, 10)
    shown = heatmap.overlay(image, heat).reshape(100, 3)
    share = np.arange(100) / 99
    assert (shown[share < 0.5] == 100).all()
    inferno = matplotlib.colormaps["inferno"]
    for step in range(5):
        inside = (share >= 0.5 + step / 10 + 1e-6) & (share < 0.6 + step / 10 - 1e-6)
        colour = 255 * np.array(inferno(0.35 + 0.6 * step / 4)[:3])
        np.testing.assert_allclose(
            shown[inside], np.tile(50 + colour / 2, (inside.sum(), 1)), atol=1
        )
    brightest = 255 * np.array(inferno(0.95)[:3])  # at the maximum itself no sixth colour
    np.testing.assert_allclose(shown[-1], 50 + brightest / 2, atol=1)
