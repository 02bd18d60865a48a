import numpy as np
import pytest

from data import label_tree
from losses.penalties import data_driven, fixed

PARENTS = label_tree.parent_matrix(((), (), (0, 1)))  # one child of two parents


def test_one_half_is_a_negative_parent_and_no_positive_child():
    targets = np.array([[0.5, 1], [0.51, 1], [0, 0.5], [0, 0.51], [np.nan, 1]])
    weights = data_driven(targets, [[0, 0], [1, 0]], scale=1.0)
    assert weights[1, 0] == pytest.approx(1 - 2 / 3, abs=1e-5)  # two of three below the parent


def test_the_weights_are_one_half_unless_given():
    np.testing.assert_array_equal(fixed(PARENTS), 0.5 * PARENTS)
    np.testing.assert_allclose(data_driven(np.zeros((5, 3)), PARENTS), 0.5 * PARENTS, atol=1e-6)


def test_data_driven_weights_count_children_without_their_parent():
    targets = np.array(
        [[0, 0, 1], [0, 1, 0], [0, 0, 0], [0, 1, np.nan], [1, 1, 1], [np.nan, 1, 1]], float
    )
    weights = data_driven(targets, PARENTS, scale=0.5)
    assert weights[2, 0] == pytest.approx(0.5 * (1 - (1 + 1e-6) / (3 + 2e-6)), rel=1e-12)
    assert weights[2, 1] == pytest.approx(0.5 * (1 - (1 + 1e-6) / (2 + 2e-6)), rel=1e-12)
    assert np.count_nonzero(weights) == 2
