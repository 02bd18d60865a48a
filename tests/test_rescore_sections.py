"""Answer the further questions of docs/evidence.md from small files, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from data import policies
from evaluation import EvaluationError
from reproduce.rescore import label_error, uncertain
from reproduce.rescore.experts import ExpertSet
from tests.rescore_command import rescore

# How often labels are wrong

MASS, NODULE = (1, 1, 1, 0, 0, 0), (0, 0, 1, 1, 1, np.nan)  # by the experts, of six images
FROM_REPORTS = ("Mass", "Nodule|Mass", "Hernia", "Mass", "No Finding", "Nodule")


def label_file(folder, findings):
    images = [f"{number:08d}_000.png" for number in range(1, len(findings) + 1)]
    rows = {"Image Index": images, "Finding Labels": findings, "Patient ID": [*range(len(images))]}
    table = pd.DataFrame(rows).assign(**{"Patient Gender": "F", "Patient Age": 1})
    table.assign(**{"View Position": "PA"}).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv", images


def test_errors_of_labels_by_hand(tmp_path):
    path, images = label_file(tmp_path, FROM_REPORTS)
    truth = pd.DataFrame({"Mass": MASS, "Nodule": NODULE}, images)
    same_as = {"Mass": ("Mass",), "Nodule": ("Nodule",), "Either": ("Mass", "Nodule")}
    truth["Either"] = [1, 1, 1, 1, 1, 0]
    table = label_error.errors(ExpertSet("two", truth, truth, same_as), path, 50, 0)
    table = table.set_index("label")
    counts = ["both", "report_only", "experts_only", "neither"]
    # reports say Mass of images 1, 2 and 4, and Nodule of 2 and 6; the experts leave 6 open
    assert table.loc["Mass", counts].tolist() == [2, 1, 1, 2]
    assert table.loc["Nodule", counts].tolist() == [0, 1, 3, 1]
    assert table.loc["Either", counts].tolist() == [3, 1, 2, 0]
    assert table.loc["all", counts].tolist() == [5, 3, 6, 3]
    assert table.loc["all", "sensitivity"] == pytest.approx(5 / 11)
    assert table.loc["Mass", "precision"] == pytest.approx(2 / 3)
    assert table.loc["Nodule", "specificity"] == pytest.approx(1 / 2)


def test_the_shipped_errors_are_those_of_the_command(shared_data, tmp_path):
    labels = shared_data / "chestxray14-labels"
    where = "--released", shared_data / "expert-relabels", "--data-dir", labels
    assert rescore("label-error", *where, "--results-dir", tmp_path) == 0
    own = pd.read_csv(tmp_path / "evidence" / "released" / "label-error.csv")
    shipped = pd.read_csv(label_error.SHIPPED)
    bounds = [name for name in shipped if name.endswith(("_low", "_high"))]
    pd.testing.assert_frame_equal(
        own.drop(columns=bounds), shipped.drop(columns=bounds), atol=5.1e-5, rtol=0
    )
    whole = shipped.query("experts == 'all findings' and label == 'all'").iloc[0]
    assert 1 - whole["sensitivity"] == pytest.approx(0.70, abs=0.005)
    assert 1 - whole["precision"] == pytest.approx(0.54, abs=0.005)


def test_a_label_file_without_the_images_is_refused(tmp_path):
    path, _ = label_file(tmp_path, FROM_REPORTS)
    truth = pd.DataFrame({"Mass": [1.0]}, ["00009999_000.png"])
    with pytest.raises(EvaluationError, match="lacks 1 of 1 images"):
        label_error.errors(ExpertSet("one", truth, truth, {"Mass": ("Mass",)}), path, 5, 0)


# What uncertain labels hide


def test_what_is_behind_each_value_by_hand():
    # two labels of five studies: Edema (-1, -1, 1, blank, blank), Fracture (0, 1, -1, -1, blank)
    studies = [f"test/patient{number}/study1" for number in range(5)]
    names = ["Edema", "Fracture"]
    blank = np.nan
    labeler = pd.DataFrame({"Edema": [-1, -1, 1, blank, blank], "Fracture": [0, 1, -1, -1, blank]})
    truth = pd.DataFrame({"Edema": [1, 0, 1, 1, 0], "Fracture": [0, 1, 0, 0, 1]}, studies)
    frame = uncertain.behind(truth, labeler.set_axis(studies), names, 50, 0)
    frame = frame.set_index(["label", "value"])
    assert frame.loc[("Edema", "uncertain"), ["studies", "positives"]].tolist() == [2, 1]
    assert frame.loc[("Edema", "blank"), ["studies", "positives"]].tolist() == [2, 1]
    assert frame.loc[("Fracture", "uncertain"), "share"] == 0
    assert frame.loc[("all", "uncertain"), ["studies", "positives", "share"]].tolist() == [
        4,
        1,
        1 / 4,
    ]
    assert frame.loc[("all", "blank"), "share"] == pytest.approx(2 / 3)
    assert frame.loc[("all", "blank"), "of_positives_share"] == pytest.approx(2 / 5)
    assert frame.loc["all", "positives"].sum() == 5  # each positive has exactly one value


@pytest.mark.parametrize("policy", ["zeros", "ones", "zeros-lsr", "ones-lsr"])
def test_the_error_of_a_policy_is_that_of_its_own_targets(policy):
    images = 4000
    truth = np.arange(images) % 10 < 3  # 30 % are positive
    released = np.full((images, 1), -1.0)
    targets = policies.apply(released, policy, ids=[str(image) for image in range(images)])
    error = ((targets[:, 0] - truth) ** 2).mean()
    assert uncertain.squared_error(policy, 0.3) == pytest.approx(error, abs=0.01)


def test_the_best_policies_of_a_share():
    # U-Zeros (q) meets its smoothing (.03 + .7 q) at .1, which meets U-Ones+LSR (.4975 - .4 q) at
    # .425, which meets U-Ones (1 - q) at .8375
    assert uncertain.best_policies(0.0, 0.09) == ["zeros"]
    assert uncertain.best_policies(0.11, 0.42) == ["zeros-lsr"]
    assert uncertain.best_policies(0.43, 0.83) == ["ones-lsr"]
    assert uncertain.best_policies(0.84, 1.0) == ["ones"]
    assert uncertain.best_policies(0.05, 0.5) == ["zeros", "zeros-lsr", "ones-lsr"]
    assert uncertain.meeting(0.31, 0.54) == []
    assert uncertain.meeting(0.2, 0.6) == ["U-Zeros+LSR", "U-Ones+LSR"]
