import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from losses.masking import cross_entropy, masked_bce
from tests.gradients import values_and_gradients

Y = np.array([[0.0, 2.0, -1.0], [3.0, -3.0, 0.5], [1.0, 1.0, 1.0]])
Z = np.array([[1.0, 0.0, np.nan], [0.25, 1.0, 0.0], [np.nan, np.nan, np.nan]])


def plain(z, y):
    p = 1 / (1 + np.exp(-y))
    return -z * np.log(p) - (1 - z) * np.log(1 - p)


@pytest.mark.parametrize(("labels", "divisors"), [("sum", [1, 1, 1]), ("mean", [2, 3, 1])])
def test_hand_worked_images(labels, divisors):
    values, gradients = values_and_gradients(lambda y: masked_bce(Z, y, labels), Y)
    divisors = np.array(divisors)
    np.testing.assert_allclose(values, np.nansum(plain(Z, Y), axis=1) / divisors)
    slope = np.nan_to_num(1 / (1 + np.exp(-Y)) - Z) / divisors[:, None]
    np.testing.assert_allclose(gradients, slope, atol=1e-15)


def test_certain_answers_keep_their_small_losses():
    y = np.array([[10.0, -10.0, 60.0, -100.0]], np.float32)
    z = np.array([[1.0, 0.0, 1.0, 1.0]], np.float32)
    values = np.array(
        [values_and_gradients(lambda x: cross_entropy(ops.convert_to_tensor(z), x), y)[0]]
    )
    np.testing.assert_allclose(
        values.ravel(), [4.5398899e-05, 4.5398899e-05, 8.7565108e-27, 100], rtol=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["sum", "mean"]))
def test_unknown_labels_change_nothing(seed, labels):
    generator = np.random.default_rng(seed)
    y = generator.normal(0, 5, (4, 6))
    z = np.where(generator.random((4, 6)) < 0.4, np.nan, generator.random((4, 6)))
    values, gradients = values_and_gradients(lambda x: masked_bce(z, x, labels), y)
    moved = np.where(np.isnan(z), generator.normal(0, 50, y.shape), y)
    others, _ = values_and_gradients(lambda x: masked_bce(z, x, labels), moved)
    np.testing.assert_array_equal(values, others)
    assert np.all(gradients[np.isnan(z)] == 0)
    for image in range(4):  # as if the unknown columns were not there
        kept = ~np.isnan(z[image])
        if kept.any():
            part, _ = values_and_gradients(
                lambda x, z=z[image, kept]: masked_bce(z[None], x, labels),
                y[image : image + 1, kept],
            )
            np.testing.assert_allclose(values[image], part[0])
