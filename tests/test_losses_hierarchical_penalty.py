import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import label_tree
from losses.hierarchical_penalty import hierarchical_penalty, penalty
from losses.masking import masked_bce
from losses.penalties import fixed
from tests.gradients import values_and_gradients

PARENTS = label_tree.parent_matrix(((), (), (0, 1)))  # one child of two parents
UNKNOWN = np.array([[0.0, 0.0, np.nan]])


def sigma(y):
    return 1 / (1 + np.exp(-y))


def test_hand_worked_penalties():
    y = np.array([[-1.0, 2.0, 1.0], [-1.0, -2.0, 1.0], [-1.0, -2.0, -0.5]])
    z = np.zeros_like(y)
    weights = fixed(PARENTS, 0.1)
    released, _ = values_and_gradients(lambda x: penalty(z, x, weights, "as_released"), y)
    np.testing.assert_allclose(released, [0.1, 0.2, 0])
    ours, _ = values_and_gradients(lambda x: penalty(z, x, weights), y)
    p = sigma(y)
    np.testing.assert_allclose(ours, 0.1 * np.maximum(p[:, 2:] - p[:, :2], 0).sum(axis=1))


def test_the_released_step_is_strict_on_both_sides():
    """A parent or a child at exactly one half is not penalised."""
    weights = fixed([[0, 0], [1, 0]], 0.5)
    y = np.array([[-1.0, 1.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [-1e-9, 1e-9]])
    values, _ = values_and_gradients(lambda x: penalty(y * 0, x, weights, "as_released"), y)
    np.testing.assert_array_equal(values, [0.5, 0, 0, 0, 0.5])


def test_a_pair_needs_both_targets_known():
    weights, y = fixed([[0, 0], [1, 0]], 0.5), np.array([[-1.0, 1.0]] * 4)
    z = np.array([[0, 0], [np.nan, 0], [0, np.nan], [np.nan, np.nan]])
    values, _ = values_and_gradients(lambda x: penalty(z, x, weights, "as_released"), y)
    np.testing.assert_array_equal(values, [0.5, 0, 0, 0])


def test_the_released_step_has_no_gradient_and_the_differentiable_form_has():
    y, z = np.array([[-1.0, -2.0, 1.0]]), np.array([[1.0, 0.0, 1.0]])
    weights = fixed(PARENTS, 0.5)
    plain = values_and_gradients(lambda x: masked_bce(z, x, "mean"), y)
    released = values_and_gradients(lambda x: hierarchical_penalty(z, x, weights, "as_released"), y)
    ours = values_and_gradients(lambda x: hierarchical_penalty(z, x, weights), y)
    np.testing.assert_allclose(released[0], plain[0] + 1)  # the value moves,
    np.testing.assert_array_equal(released[1], plain[1])  # training does not
    slope = 0.5 * sigma(y) * (1 - sigma(y)) * [[-1, -1, 2]]  # parents up, child down
    np.testing.assert_allclose(ours[1] - plain[1], slope)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["as_released", "differentiable"]))
def test_consistent_predictions_are_not_penalised(seed, form):
    generator = np.random.default_rng(seed)
    parents = label_tree.parent_matrix(label_tree.ASADI)
    ancestors = label_tree.ancestor_matrix(label_tree.ASADI)
    y = generator.normal(0, 3, (4, len(parents)))
    z = generator.integers(0, 2, y.shape).astype(float)
    # no child above a parent: every label takes the least logit of its ancestors
    y = np.where(ancestors > 0, y[:, None], np.inf).min(axis=2)
    values, gradients = values_and_gradients(lambda x: penalty(z, x, fixed(parents), form), y)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradients, 0)


@pytest.mark.parametrize("form", ["as_released", "differentiable"])
def test_weight_zero_is_plain_cross_entropy_and_unknown_pairs_have_no_penalty(form):
    y = np.array([[-3.0, -3.0, 3.0]])
    plain = values_and_gradients(lambda x: masked_bce(UNKNOWN, x, "mean"), y)
    for weights in (fixed(PARENTS, 0.0), fixed(PARENTS, 0.5)):
        ours = values_and_gradients(
            lambda x, w=weights: hierarchical_penalty(UNKNOWN, x, w, form), y
        )
        np.testing.assert_allclose(ours[0], plain[0])
        np.testing.assert_allclose(ours[1], plain[1])


def test_wrong_arguments_are_named():
    y = np.zeros((1, 3))
    with pytest.raises(ValueError, match="form must be one of as_released, differentiable"):
        penalty(y, y, fixed(PARENTS), "step")
    with pytest.raises(ValueError, match=r"shape \(2, 2\) do not fit 3 logits"):
        penalty(y, y, np.zeros((2, 2)))
