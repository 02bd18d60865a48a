"""Answer the further questions of docs/evidence.md from small files, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from evaluation import EvaluationError
from reproduce.rescore import label_error
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
