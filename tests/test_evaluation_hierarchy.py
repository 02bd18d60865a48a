import numpy as np
import pytest

from data import label_tree
from evaluation import EvaluationError, hierarchy

TREE = (-1, 0, 1, 0)  # 0 -> 1 -> 2, 0 -> 3
DAG = ((), (), (0, 1))


def test_path_product_by_hand():
    conditional = np.array([0.5, 0.4, 0.1, 0.9])
    product = hierarchy.path_product(conditional, label_tree.ancestor_matrix(TREE))
    np.testing.assert_allclose(product, [0.5, 0.2, 0.02, 0.45], rtol=1e-15)
    product = hierarchy.path_product(np.array([0.5, 0.4, 0.1]), label_tree.ancestor_matrix(DAG))
    np.testing.assert_allclose(product, [0.5, 0.4, 0.02], rtol=1e-15)


def test_path_product_keeps_the_member_axis_and_float64_where_float32_underflows():
    conditional = np.full((3, 7, 4), 1e-30, np.float32)
    product = hierarchy.path_product(conditional, label_tree.ancestor_matrix(TREE))
    assert product.shape == (3, 7, 4)
    np.testing.assert_allclose(product[0, 0], [1e-30, 1e-60, 1e-90, 1e-60], rtol=1e-5)


def test_violations_by_hand():
    probabilities = np.array(
        [
            [0.4, 0.6, 0.1, 0.3],  # 1 present without 0, exceeding by .2
            [0.9, 0.95, 0.2, 0.3],  # 1 exceeds 0 by .05, both present
            [0.9, 0.5, 0.6, 0.3],  # 2 present, 1 not above the threshold
        ]
    )
    parents = label_tree.parent_matrix(TREE)
    broken = hierarchy.violations(probabilities, parents, "abcd").set_index(["parent", "child"])
    assert broken.index.tolist() == [("a", "b"), ("b", "c"), ("a", "d")]
    assert broken.loc[("a", "b"), "contradictions"] == 1
    assert broken.loc[("a", "b"), "exceeding"] == 2
    assert broken.loc[("a", "b"), "mean_excess"] == pytest.approx(0.125)
    assert broken.loc[("a", "b"), "largest_excess"] == pytest.approx(0.2)
    assert broken.loc[("b", "c"), ["contradictions", "exceeding"]].tolist() == [1, 1]
    assert broken.loc[("a", "d"), ["contradictions", "exceeding"]].tolist() == [0, 0]
    assert broken.loc[("a", "d"), "mean_excess"] == 0


@pytest.mark.parametrize("tree", [label_tree.PLCO, label_tree.ASADI])
def test_the_chain_rule_leaves_no_violation(tree):
    conditional = np.random.default_rng(0).random((200, len(tree)))
    parents, names = label_tree.parent_matrix(tree), [str(i) for i in range(len(tree))]
    before = hierarchy.violations(conditional, parents, names)
    assert len(before) == parents.sum()
    assert (before["exceeding"] > 0).all()
    product = hierarchy.path_product(conditional, label_tree.ancestor_matrix(tree))
    after = hierarchy.violations(product, parents, names)
    assert (after[["contradictions", "exceeding"]] == 0).all(axis=None)


def test_labels_without_a_hierarchy():
    broken = hierarchy.violations(np.zeros((2, 3)), np.zeros((3, 3)), "abc")
    assert len(broken) == 0
    assert "contradictions" in broken


def test_errors():
    ancestors = label_tree.ancestor_matrix(TREE)
    with pytest.raises(EvaluationError, match="over 4 labels, but 3"):
        hierarchy.path_product(np.zeros((2, 3)), ancestors)
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(EvaluationError, match=r"\[0, 1\]"):
            hierarchy.path_product(np.full((2, 4), bad), ancestors)
