"""The hierarchies: what stands above the released labels, by hand and as Asadi released it."""

import numpy as np
import pandas as pd

from data import hierarchies, labels, policies


def test_other_datasets_get_their_inner_labels_from_the_leaves():
    names = labels.CHESTXRAY14_HIERARCHY
    frame = pd.DataFrame([[1.0] + [0.0] * 13, [0.0] * 14], columns=list(labels.CHESTXRAY14))
    truth = hierarchies.truth(frame, "chestxray14", "ones")
    above = {"Atelectasis", "Opacity", "Pulmonary", "Abnormal"}
    assert {name for name, value in zip(names, truth[0], strict=True) if value == 1} == above
    assert not truth[1].any()


def test_an_ignored_uncertain_label_leaves_abnormal_unknown():
    frame = pd.DataFrame([[np.nan] * 13 + [-1.0]] * 2, columns=list(labels.CHEXPERT))
    frame.loc[0, "Edema"] = -1.0
    frame.loc[1, "Edema"] = 1.0
    truth = hierarchies.truth(frame, "chexpert", "ignore")
    abnormal = truth[:, labels.CHEXPERT_HIERARCHY.index("Abnormal")]
    assert np.isnan(abnormal[0])
    assert abnormal[1] == 1


def truth_of(released: dict[str, list[float]], uncertain: str) -> np.ndarray:
    table = pd.DataFrame(released).reindex(columns=list(labels.ASADI[:14]), fill_value=0.0)
    known = table.to_numpy(np.float32)
    return hierarchies.asadi(policies.apply(known, uncertain))


def test_21_targets_by_hand():
    released = {
        "Pneumonia": [1, 0, 0, 0],
        "Cardiomegaly": [0, 1, 0, 0],
        "No Finding": [0, 0, 1, 0],
        "Support Devices": [0, 0, 1, 0],
    }
    found = truth_of(released, "ones")
    positive = [{labels.ASADI[k] for k in np.flatnonzero(of_image)} for of_image in found]
    assert positive == [
        {"Pneumonia", "Abnormal", "Opacity", "Fluid Accumulation"},
        {"Cardiomegaly", "Abnormal", "Cardiac"},
        {"No Finding", "Support Devices", "Other"},  # Abnormal is what No Finding denies
        {"Uncertain"},
    ]


def test_unknown_labels_leave_open_what_depends_on_them():
    nan = np.nan
    released = {"Edema": [-1, -1, -1], "Pneumonia": [0, 1, 0], "No Finding": [0, 0, 1]}
    found = pd.DataFrame(truth_of(released, "ignore"), columns=labels.ASADI)
    assert found["Fluid Accumulation"].tolist()[1] == 1
    np.testing.assert_array_equal(found["Fluid Accumulation"], [nan, 1, nan])
    np.testing.assert_array_equal(found["Uncertain"], [nan, 0, 0])
    np.testing.assert_array_equal(found["Abnormal"], [nan, 1, 0])
    np.testing.assert_array_equal(found["Cardiac"], [0, 0, 0])


def test_21_targets_are_those_that_the_authors_released(shared_data):
    name = "asadi2025_default_model_predictions_vs_groundtruth_with_errors.csv"
    table = pd.read_csv(shared_data / "released" / name)
    theirs = table[[f"{label}_GT" for label in labels.ASADI]].to_numpy(np.float32)
    ours = hierarchies.asadi(theirs[:, :14])
    differ = {labels.ASADI[label] for label in np.flatnonzero((ours != theirs).any(axis=0))}
    assert differ == {"Abnormal"}  # docs/papers/asadi2025.md: they counted Uncertain as Abnormal
    uncertain, abnormal = (labels.ASADI.index(name) for name in ("Uncertain", "Abnormal"))
    np.testing.assert_array_equal(ours[:, abnormal] + ours[:, uncertain], theirs[:, abnormal])
