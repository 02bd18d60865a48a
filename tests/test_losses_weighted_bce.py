import numpy as np
import pytest

from losses.masking import masked_bce
from losses.weighted_bce import factors, weighted_bce
from tests.gradients import values_and_gradients

TARGETS = np.array([[1, 0, 0], [0, 0, np.nan], [0, 0, 1], [0, 0, 0]], float)


def test_factors_of_both_readings():
    positive, negative = factors(TARGETS)
    np.testing.assert_allclose(positive, [3 / 4, 1, 2 / 3])
    np.testing.assert_allclose(negative, [1 / 4, 0, 1 / 3])
    positive, negative = factors(TARGETS, "positive")
    np.testing.assert_allclose(positive, [3, 4, 2])  # label 1 has no positive: any finite value
    np.testing.assert_allclose(negative, [1, 1, 1])


def test_a_class_with_a_single_positive_image_is_not_divided_by_more():
    positive, _ = factors(np.array([[1.0], [0], [0], [0], [0]]), "positive")
    np.testing.assert_array_equal(positive, [4])


def test_soft_targets_count_by_their_share():
    positive, negative = factors(np.array([[0.5], [0.25], [0.25], [0]]))
    np.testing.assert_allclose([positive, negative], [[0.75], [0.25]])


def test_hand_worked_value_and_gradient():
    y, z = np.array([[0.0, 0.0, 2.0]]), np.array([[1.0, 0.0, np.nan]])
    values, gradients = values_and_gradients(
        lambda x: weighted_bce(z, x, [3.0, 1.0, 5.0], [1.0, 0.5, 5.0]), y
    )
    np.testing.assert_allclose(values, [3.5 * np.log(2)])
    np.testing.assert_allclose(gradients, [[-1.5, 0.25, 0]])


def test_factors_of_one_are_plain_cross_entropy():
    generator = np.random.default_rng(1)
    y, z = generator.normal(0, 5, (6, 3)), generator.random((6, 3))
    for labels in ("sum", "mean"):
        weighted = values_and_gradients(
            lambda x, of=labels: weighted_bce(z, x, np.ones(3), np.ones(3), of), y
        )
        plain = values_and_gradients(lambda x, of=labels: masked_bce(z, x, of), y)
        np.testing.assert_allclose(weighted[0], plain[0])
        np.testing.assert_allclose(weighted[1], plain[1])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"known for labels \[1\]"):
        factors([[1, np.nan], [0, np.nan]])
    with pytest.raises(ValueError, match='"both" or "positive"'):
        factors(TARGETS, "negative")
