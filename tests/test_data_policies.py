"""Uncertain-label policies: values by hand, draws that depend on the image and label alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DataError, label_tree, labels, policies
from data.labels import CHEXPERT

NAN = np.nan
RELEASED = np.array([[1, 0, -1, NAN], [-1, -1, 0, 1]], np.float32)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("ignore", [[1, 0, NAN, 0], [NAN, NAN, 0, 1]]),
        ("zeros", [[1, 0, 0, 0], [0, 0, 0, 1]]),
        ("ones", [[1, 0, 1, 0], [1, 1, 0, 1]]),
    ],
)
def test_targets_by_hand(policy, expected):
    targets = policies.apply(RELEASED, policy)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, expected)


@pytest.mark.parametrize(
    ("policy", "low", "high"), [("zeros-lsr", 0, 0.3), ("ones-lsr", 0.55, 0.85)]
)
def test_smoothing_touches_uncertain_labels_only_and_fills_its_interval(policy, low, high):
    released = np.full((2000, 4), -1.0)
    released[:, :3] = [1, 0, NAN]
    targets = policies.apply(released, policy, seed=3, ids=[f"image{i}" for i in range(2000)])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets[:, :3], np.tile([1, 0, 0], (2000, 1)))
    drawn = np.sort((targets[:, 3] - low) / (high - low))
    assert drawn[0] >= -1e-6
    assert drawn[-1] <= 1 + 1e-6
    # Kolmogorov's distance to the uniform distribution, at its 0.1 % point
    assert np.abs(drawn - (np.arange(2000) + 0.5) / 2000).max() < 1.95 / np.sqrt(2000)


def test_draws_of_labels_images_seeds_and_epochs_are_unrelated():
    released, ids = np.full((1500, 2), -1.0), [str(i) for i in range(1500)]
    draw = [
        policies.apply(released, "ones-lsr", seed, epoch, ids)
        for seed, epoch in ((0, None), (1, None), (0, 0), (0, 1))
    ]
    columns = np.concatenate(draw, axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 4 / np.sqrt(1500)
    assert len(np.unique(columns)) > 0.99 * columns.size


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(6)), st.sampled_from([None, 0, 7]))
def test_draws_do_not_depend_on_subset_or_order(seed, order, epoch):
    released = np.where(np.arange(18).reshape(6, 3) % 2, -1, 1)
    ids = pd.Series([f"train/patient{i}/view1.jpg" for i in range(6)])
    whole = policies.apply(released, "zeros-lsr", seed, epoch, ids)
    some = order[:4]
    part = policies.apply(released[some], "zeros-lsr", seed, epoch, ids[some])
    np.testing.assert_array_equal(part, whole[some])


def test_the_draws_never_change_between_versions():
    targets = policies.apply([[-1, -1]], "ones-lsr", seed=0, ids=["a/b.jpg"])
    np.testing.assert_allclose(targets, [[0.6690909, 0.8268698]], atol=1e-6)
    np.testing.assert_array_equal(policies.apply([[-1, -1]], "ones-lsr", ids=["a/b.jpg"]), targets)


def test_applying_a_policy_leaves_the_released_labels():
    before = RELEASED.copy()
    policies.apply(RELEASED, "ones-lsr", ids=["a", "b"])
    np.testing.assert_array_equal(RELEASED, before)


@pytest.mark.parametrize(
    ("policy", "parent"),
    [("ones", 1), ("ones-lsr", 1), ("zeros", 0), ("zeros-lsr", 0), ("ignore", NAN)],
)
def test_an_uncertain_parent_follows_the_policy(policy, parent):
    """Children train where the parent's target is above 0.5, and not where it is unknown."""
    released = np.zeros((1, len(CHEXPERT)))
    lung, edema = CHEXPERT.index("Lung Opacity"), CHEXPERT.index("Edema")
    released[0, lung] = -1
    targets = policies.apply(released, policy, ids=["a"])
    positive = np.where(np.isnan(targets), NAN, targets > 0.5)
    np.testing.assert_array_equal(positive[0, lung], parent)
    released[0, edema] = 1  # a positive child settles it, whatever the policy
    closed = label_tree.close(policies.apply(released, policy, ids=["a"]), label_tree.CHEXPERT)
    assert closed[0, lung] == 1


def test_wrong_use_is_refused():
    with pytest.raises(DataError, match="no policy 'U-Ones'; choose one of ignore"):
        policies.apply(RELEASED, "U-Ones")
    with pytest.raises(DataError, match="must be 1, 0, -1 or blank"):
        policies.apply([[0.5]], "ones")
    for ids in (None, ["a"]):
        with pytest.raises(ValueError, match="needs the id of each of the 2 images"):
            policies.apply(RELEASED, "ones-lsr", ids=ids)


def test_other_datasets_get_their_inner_labels_from_the_leaves():
    names = labels.CHESTXRAY14_HIERARCHY
    frame = pd.DataFrame([[1.0] + [0.0] * 13, [0.0] * 14], columns=list(labels.CHESTXRAY14))
    truth = policies.hierarchy_targets(frame, "chestxray14", "ones")
    above = {"Atelectasis", "Opacity", "Pulmonary", "Abnormal"}
    assert {name for name, value in zip(names, truth[0], strict=True) if value == 1} == above
    assert not truth[1].any()


def test_an_ignored_uncertain_label_leaves_abnormal_unknown():
    frame = pd.DataFrame([[np.nan] * 13 + [-1.0]] * 2, columns=list(labels.CHEXPERT))
    frame.loc[0, "Edema"] = -1.0
    frame.loc[1, "Edema"] = 1.0
    truth = policies.hierarchy_targets(frame, "chexpert-abnormal", "ignore")
    abnormal = truth[:, labels.CHEXPERT_HIERARCHY.index("Abnormal")]
    assert np.isnan(abnormal[0])
    assert abnormal[1] == 1


def truth_of(released: dict[str, list[float]], uncertain: str) -> np.ndarray:
    table = pd.DataFrame(released).reindex(columns=list(labels.ASADI[:14]), fill_value=0.0)
    known = table.to_numpy(np.float32)
    return policies.asadi_targets(policies.apply(known, uncertain))


def test_21_targets_by_hand():
    released = {
        "Pneumonia": [1, 0, 0, 0],
        "Cardiomegaly": [0, 1, 0, 0],
        "No Finding": [0, 0, 1, 0],
        "Support Devices": [0, 0, 1, 0],
    }
    truth = truth_of(released, "ones")
    positive = [{labels.ASADI[k] for k in np.flatnonzero(of_image)} for of_image in truth]
    assert positive == [
        {"Pneumonia", "Abnormal", "Opacity", "Fluid Accumulation"},
        {"Cardiomegaly", "Abnormal", "Cardiac"},
        {"No Finding", "Support Devices", "Other"},  # Abnormal is what No Finding denies
        {"Uncertain"},
    ]


def test_targets_that_depend_on_unknown_labels_are_unknown():
    nan = np.nan
    released = {"Edema": [-1, -1, -1], "Pneumonia": [0, 1, 0], "No Finding": [0, 0, 1]}
    truth = pd.DataFrame(truth_of(released, "ignore"), columns=labels.ASADI)
    assert truth["Fluid Accumulation"].tolist()[1] == 1
    np.testing.assert_array_equal(truth["Fluid Accumulation"], [nan, 1, nan])
    np.testing.assert_array_equal(truth["Uncertain"], [nan, 0, 0])
    np.testing.assert_array_equal(truth["Abnormal"], [nan, 1, 0])
    np.testing.assert_array_equal(truth["Cardiac"], [0, 0, 0])


def test_21_targets_are_those_that_the_authors_released(shared_data):
    name = "asadi2025_default_model_predictions_vs_groundtruth_with_errors.csv"
    table = pd.read_csv(shared_data / "released" / name)
    theirs = table[[f"{label}_GT" for label in labels.ASADI]].to_numpy(np.float32)
    ours = policies.asadi_targets(theirs[:, :14])
    differ = {labels.ASADI[label] for label in np.flatnonzero((ours != theirs).any(axis=0))}
    assert differ == {"Abnormal"}  # docs/papers/asadi2025.md: they counted Uncertain as Abnormal
    uncertain, abnormal = (labels.ASADI.index(name) for name in ("Uncertain", "Abnormal"))
    np.testing.assert_array_equal(ours[:, abnormal] + ours[:, uncertain], theirs[:, abnormal])
