"""Hierarchies: hand-worked cases, the papers' trees, real lists and random DAGs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import label_tree, labels

NAN = np.nan
CHAIN = (-1, 0, 1)
DAG = ((), (), (0,), (2, 1), ())  # 2 under 0, 3 under both 2 and 1, 4 alone


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (label_tree.PLCO, labels.PLCO),
        (label_tree.CHEXPERT, labels.CHEXPERT),
        (label_tree.ASADI, labels.ASADI),
        (label_tree.CHESTXRAY14_HIERARCHY, labels.CHESTXRAY14_HIERARCHY),
        (label_tree.CHEXPERT_HIERARCHY, labels.CHEXPERT_HIERARCHY),
    ],
)
def test_each_tree_covers_its_labels_once(tree, names):
    assert len(tree) == len(names) == len(set(names))
    together = np.sort(np.concatenate([label_tree.leaves(tree), label_tree.inner(tree)]))
    np.testing.assert_array_equal(together, np.arange(len(names)))


def path(tree, names, label):
    """Return the names on the path from the root, for a tree."""
    index, way = names.index(label), []
    while index >= 0:
        way, index = [names[index], *way], tree[index]
    return way


def test_the_plco_tree_is_that_of_chen():
    assert path(label_tree.PLCO, labels.PLCO, "Infiltration") == [
        "Abnormal",
        "Pulmonary",
        "Opacity",
        "Infiltration",
    ]
    assert label_tree.depth(label_tree.PLCO) == 4  # the paper's maximum depth
    assert len(label_tree.leaves(label_tree.PLCO)) == 14
    assert [labels.PLCO[i] for i in label_tree.inner(label_tree.PLCO)] == [
        "Pulmonary Nodules and Masses",
        "Opacity",
        "Pleural Abnormality",
        "Pulmonary",
        "Abnormal",
    ]


def test_the_chexpert_tree_is_that_of_irvin():
    tree, names = label_tree.CHEXPERT, labels.CHEXPERT
    assert path(tree, names, "Pneumonia") == ["Lung Opacity", "Consolidation", "Pneumonia"]
    assert path(tree, names, "Cardiomegaly") == ["Enlarged Cardiomediastinum", "Cardiomegaly"]
    alone = {name for name, parent in zip(names, tree, strict=True) if parent == -1}
    assert alone - {"Lung Opacity", "Enlarged Cardiomediastinum"} == {
        "No Finding",
        "Pneumothorax",
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
    }


def test_two_labels_of_asadi_have_two_parents():
    parents = label_tree.parent_matrix(label_tree.ASADI)
    names = np.array(labels.ASADI)
    two = {str(names[m]): set(names[row > 0]) for m, row in enumerate(parents) if row.sum() > 1}
    assert two == {
        "Cardiomegaly": {"Cardiac", "Enlarged Cardiomediastinum"},
        "Pneumonia": {"Fluid Accumulation", "Consolidation"},
    }
    assert label_tree.depth(label_tree.ASADI) == 5  # Abnormal … Consolidation, Pneumonia


def test_a_tree_and_the_equivalent_dag_agree():
    as_dag = tuple(() if parent < 0 else (parent,) for parent in label_tree.PLCO)
    for function in (label_tree.parent_matrix, label_tree.ancestor_matrix):
        np.testing.assert_array_equal(function(as_dag), function(label_tree.PLCO))
    assert label_tree.depth(as_dag) == label_tree.depth(label_tree.PLCO)


def test_matrices_of_a_small_dag_by_hand():
    parents = [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(label_tree.parent_matrix(DAG), parents)
    ancestors = np.eye(5) + parents
    ancestors[3, 0] = 1
    np.testing.assert_array_equal(label_tree.ancestor_matrix(DAG), ancestors)
    assert label_tree.depth(DAG) == 3
    assert label_tree.leaves(DAG).tolist() == [3, 4]
    assert label_tree.inner(DAG).tolist() == [0, 1, 2]


def test_a_flat_set_of_labels_is_a_tree():
    flat = (-1, -1, -1)
    np.testing.assert_array_equal(label_tree.ancestor_matrix(flat), np.eye(3))
    assert label_tree.depth(flat) == 1
    assert label_tree.leaves(flat).tolist() == [0, 1, 2]
    assert label_tree.inner(flat).size == 0
    assert not label_tree.violations([[0, 1, NAN]], flat).any()


def test_a_cut_tree_keeps_its_labels_and_their_last_kept_ancestor():
    tree = (-1, 0, 1, 2, 1)  # a chain of four, and a second child in its middle
    assert label_tree.cut(tree, 4) == label_tree.cut(tree, 9) == tree
    assert label_tree.cut(tree, 3) == (-1, 0, 1, 1, 1)
    assert label_tree.cut(tree, 2) == (-1, 0, 0, 0, 0)
    assert label_tree.cut(tree, 1) == (-1, -1, -1, -1, -1)
    for levels in (1, 2, 3, 4):
        assert label_tree.depth(label_tree.cut(label_tree.PLCO, levels)) == levels


def test_closing_by_hand():
    given_targets = [
        [0, 0, 1],  # the ancestors become positive
        [NAN, 0, 1],  # also an unknown one
        [NAN, NAN, 0],  # a negative child says nothing
        [0, 1, NAN],  # an unknown child stays unknown
        [0.6, 0.9, 0.7],  # a soft parent is lifted to its child, never lowered
        [0, 0, 0.5],  # at 0.5 nothing is positive
    ]
    closed = [
        [1, 1, 1],
        [1, 1, 1],
        [NAN, NAN, 0],
        [1, 1, NAN],
        [0.9, 0.9, 0.7],
        [0, 0, 0.5],
    ]
    result = label_tree.close(given_targets, CHAIN)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.asarray(closed, np.float32))


def test_violations_by_hand():
    targets = [[0, 0, 1], [NAN, NAN, 1], [1, 0, 1], [0, NAN, 1], [1, 1, 0], [0.4, 1, 0]]
    bad = [[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(label_tree.violations(targets, CHAIN), np.array(bad, bool))


@pytest.mark.parametrize("cycle", [(1, 0), (1, 2, 0), ((1,), (2,), (0,), ())])
def test_a_cycle_is_refused(cycle):
    with pytest.raises(ValueError, match="cycle"):
        label_tree.ancestor_matrix(cycle)
    with pytest.raises(ValueError, match="cycle"):
        label_tree.depth(cycle)


@pytest.mark.parametrize("tree", [(0,), (-1, 2), (-2, -1), ((), (1,))])
def test_a_parent_that_cannot_be_is_refused(tree):
    with pytest.raises(ValueError, match="cannot have parent"):
        label_tree.parent_matrix(tree)


def test_an_unknown_name_in_a_hierarchy_is_refused():
    with pytest.raises(ValueError, match="tuple"):
        label_tree.from_children(("a", "b"), {"a": ("c",)})


@st.composite
def dags(draw):
    """Draw a DAG over up to 7 labels, in any label order."""
    size = draw(st.integers(1, 7))
    order = draw(st.permutations(range(size)))
    parents = [()] * size
    for position, label in enumerate(order):
        parents[label] = tuple(draw(st.sets(st.sampled_from(order[:position])))) if position else ()
    return tuple(parents)


@st.composite
def dags_with_targets(draw):
    dag = draw(dags())
    value = st.sampled_from([0, 1, NAN, 0.15, 0.5, 0.7])
    row = st.lists(value, min_size=len(dag), max_size=len(dag))
    return dag, np.array(draw(st.lists(row, min_size=1, max_size=4)), np.float32)


def ancestors_by_walking(dag, label):
    result = {label}
    for parent in dag[label]:
        result |= ancestors_by_walking(dag, parent)
    return result


@settings(max_examples=100, deadline=None)
@given(dags())
def test_ancestors_match_a_walk_to_the_root(dag):
    matrix = label_tree.ancestor_matrix(dag)
    for label in range(len(dag)):
        assert set(np.flatnonzero(matrix[label])) == ancestors_by_walking(dag, label)
    longest = max(map(len, (ways_up(dag, label) for label in range(len(dag)))))
    assert label_tree.depth(dag) == longest


def ways_up(dag, label):
    """Return the longest path from the label to a root."""
    return [label, *max((ways_up(dag, parent) for parent in dag[label]), key=len, default=[])]


@settings(max_examples=100, deadline=None)
@given(dags_with_targets())
def test_closing_is_minimal_complete_and_done_in_one_go(case):
    dag, targets = case
    closed = label_tree.close(targets, dag)
    assert not label_tree.violations(closed, dag).any()
    np.testing.assert_array_equal(label_tree.close(closed, dag), closed)
    for row in range(len(targets)):
        for label in range(len(dag)):
            below = [m for m in range(len(dag)) if label in ancestors_by_walking(dag, m)]
            positive = [targets[row, m] for m in below if targets[row, m] > 0.5]
            expected = max(positive) if positive else targets[row, label]
            np.testing.assert_array_equal(closed[row, label], expected)


@settings(max_examples=50, deadline=None)
@given(dags_with_targets())
def test_violations_are_the_positives_below_a_known_negative(case):
    dag, targets = case
    result = label_tree.violations(targets, dag)
    for row in range(len(targets)):
        for label in range(len(dag)):
            above = targets[row, list(ancestors_by_walking(dag, label))]
            assert result[row, label] == (targets[row, label] > 0.5 and np.any(above <= 0.5))


def test_every_row_of_chens_released_list_is_closed(shared_data):
    table = pd.read_csv(shared_data / "plco-official-splits" / "val_set_delete0.0.csv.gz")
    targets = table[list(labels.PLCO)].to_numpy(np.float32)
    assert targets.shape == (8538, 19)
    assert not label_tree.violations(targets, label_tree.PLCO).any()
    np.testing.assert_array_equal(label_tree.close(targets, label_tree.PLCO), targets)
    leaves, inner = label_tree.leaves(label_tree.PLCO), label_tree.inner(label_tree.PLCO)
    only_leaves = np.zeros_like(targets)
    only_leaves[:, leaves] = targets[:, leaves]  # the inner nodes are nothing but their leaves
    closed = label_tree.close(only_leaves, label_tree.PLCO)
    np.testing.assert_array_equal(closed[:, inner], targets[:, inner])


def test_asadis_released_truth_breaks_the_hierarchy_only_at_two_pneumonias(shared_data):
    table = pd.read_csv(
        shared_data / "released/asadi2025_default_model_predictions_vs_groundtruth_with_errors.csv"
    )
    truth = table[[f"{name}_GT" for name in labels.ASADI]].to_numpy(np.float32)
    broken = label_tree.violations(truth, label_tree.ASADI).sum(axis=0)
    assert {n: int(c) for n, c in zip(labels.ASADI, broken, strict=True) if c} == {"Pneumonia": 2}


LEARNT_TREE = label_tree.from_children(("A", "B", "C", "D", "E"), {"A": ("B", "C"), "B": ("D",)})
LEARNT_PARENTS = label_tree.parent_matrix(LEARNT_TREE)
LEARNT_TARGETS = np.array(
    [
        # A  B  C  D  E(alone)
        [1, 1, 0, 0, 1],
        [1, 0, 1, 0, 0],
        [0, 0, 0, 0, 1],
        [NAN, 0.7, 1, 0.7, 0],  # A ignored as uncertain, B smoothed to a positive
    ],
    np.float32,
)


def test_a_label_is_learnt_where_its_parent_is_positive():
    expected = [[1, 1, 0, 0, 1], [1, 0, 1, NAN, 0], [0, NAN, NAN, NAN, 1], [NAN, NAN, NAN, 0.7, 0]]
    learnt = label_tree.conditional(LEARNT_TARGETS, LEARNT_PARENTS)
    np.testing.assert_array_equal(learnt, np.float32(expected))


def test_parents_are_counted_by_being_a_parent_of_any_label():
    tree = ((), (), (0, 1), (2,))  # 2 under both 0 and 1, 3 under 2
    parents = label_tree.parent_matrix(tree)
    targets = np.float32([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0.51, 0.5, 1, 0]])
    expected = [[1, 1, 1, 0], [1, 0, NAN, 1], [1, 1, 0, NAN], [0.51, 0.5, NAN, 0]]
    np.testing.assert_array_equal(label_tree.conditional(targets, parents), np.float32(expected))
    children = label_tree.conditional(targets, parents, own=False)  # 3 is the only non-parent
    np.testing.assert_array_equal(children, [[NAN, NAN, NAN, 0], *np.full((3, 4), NAN)])


def test_closing_blanks_leaves_explicit_negatives_alone():
    # Lung Opacity over Consolidation over Pneumonia; the released labels, and -1 made 1
    released = np.array([[NAN, 0, -1], [NAN, NAN, 1], [0, NAN, 1], [-1, NAN, NAN], [1, 0, 0]])
    targets = np.float32([[0, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
    blank, negative = np.isnan(released), released == 0
    everything = [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(label_tree.close(targets, CHAIN), everything)
    filled = label_tree.close(targets, CHAIN, "blanks", blank)
    expected = [[1, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_array_equal(label_tree.close(targets, CHAIN, "none"), targets)
    assert not (filled[negative] > 0.5).any()
    np.testing.assert_array_equal(label_tree.overturned(targets, CHAIN, negative), [1, 1, 0])


def test_closing_blanks_keeps_how_positive_a_smoothed_child_is():
    targets = np.float32([[NAN, 0, 0.7], [0.2, 0, 0.7]])
    blank = np.array([[True, True, False], [False, True, False]])
    filled = label_tree.close(targets, CHAIN, "blanks", blank)
    np.testing.assert_array_equal(filled, np.float32([[0.7, 0.7, 0.7], [0.2, 0.7, 0.7]]))


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="'some' must be one of all, blanks, none"):
        label_tree.close(np.zeros((1, 3)), CHAIN, "some")
    with pytest.raises(ValueError, match="needs `blank` of the shape"):
        label_tree.close(np.zeros((1, 3)), CHAIN, "blanks")


def test_trees_are_found_by_their_labels():
    whole = label_tree.parents_among(list(labels.ASADI))
    edges = label_tree.parent_matrix(label_tree.ASADI)
    assert ((whole > 0) <= (edges > 0)).all()
    assert edges.sum() - whole.sum() == 2  # two pairs are implied: over the deeper parent
    found = label_tree.parents_among(
        ["Abnormal", "Infiltration", "Nodule"]
    )  # what lies between is absent
    assert np.argwhere(found).tolist() == [[1, 0], [2, 0]]
    assert not label_tree.parents_among(["never", "heard"]).any()
