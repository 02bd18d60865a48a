"""Operating points, subgroups and calibration of a script's own rows, from files alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation import operating_points, predictions, subgroups, uncertainty
from evaluation.predictions import Predictions
from reproduce.engine import attributes, runs
from reproduce.engine.options import Options
from reproduce.engine.rows import PHANTOMS, Combined, Data, Run
from reproduce.tables import row_details
from tests.rescore_command import rescore

LABELS = ["Edema", "Mass"]
RULE = operating_points.parse("sensitivity=0.8")


def predicted(seed: int, name: str, first: int) -> Predictions:
    random = np.random.default_rng(seed)
    targets = (random.random((80, 2)) < 0.4).astype(np.float32)
    ids = np.array([f"{first + image}.png" for image in range(80)])
    scores = 0.3 * targets + 0.7 * random.random((80, 2))
    return Predictions(ids, ids, LABELS, targets, scores[None], {"run": "digest", "set": name})


@pytest.fixture
def run(tmp_path) -> Run:
    """A run with predictions of 80 test and 80 validation images, of known sex and view."""
    folder = tmp_path / "mo2019" / "chestxray14" / "R" / "seed-0"
    predictions.save(folder / runs.FINISHED, predicted(1, "test", 0))
    predictions.save(folder / runs.VALIDATION, predicted(2, "val", 100))
    (folder / runs.RECORD).write_text("{}")
    images = pd.DataFrame({"image_path": [f"{image}.png" for image in range(200)]})
    images = images.assign(sex=["F", "M"] * 100, view=["PA"] * 90 + ["AP"] * 110)
    attributes.save(images, folder.parents[1])
    return Run(Combined("R", ()), 0, folder, {}, "digest")


def write(run: Run, phantom: bool = False, **options) -> Path:
    data = Data(pd.DataFrame(), None, {"dataset": "chestxray14"}, PHANTOMS if phantom else None)
    wanted = {"operating_point": RULE, "by": (), "calibrate": False, "resamples": 20} | options
    folder = run.folder.parents[1]
    row_details.write(folder, [run], data, Options(**wanted))
    return folder


def test_thresholds_come_from_validation_and_are_applied_to_test(run):
    folder = write(run)
    points = pd.read_csv(run.folder / "operating-points.csv")
    test, validation = predicted(1, "test", 0), predicted(2, "val", 100)
    chosen = operating_points.choose(validation.targets, validation.mean, RULE)
    assert points.drop_duplicates("group")["threshold"].tolist() == pytest.approx(chosen)
    counts = operating_points.outcomes(test.targets, test.mean, chosen).sum(axis=0)
    sensitivity = points[points["metric"] == "sensitivity"]["value"]
    assert sensitivity.tolist() == pytest.approx(counts[:, 0] / (counts[:, 0] + counts[:, 2]))
    text = (folder / "operating-points.md").read_text()
    assert "with sensitivity of at least 0.8" in text
    assert "chosen on validation images" in text
    assert not (folder / "subgroups.csv").exists()


def test_a_run_of_an_earlier_version_says_that_it_chose_on_the_test_set(run):
    (run.folder / runs.VALIDATION).unlink()
    folder = write(run, calibrate=True)
    test = predicted(1, "test", 0)
    chosen = operating_points.choose(test.targets, test.mean, RULE)
    points = pd.read_csv(run.folder / "operating-points.csv")
    assert points.drop_duplicates("group")["threshold"].tolist() == pytest.approx(chosen)
    text = (folder / "calibration.md").read_text()
    assert "chosen on the scored images themselves" in text
    assert "No temperature was fitted" in text


def test_subgroups_and_temperature_of_a_row(run):
    folder = write(run, by=("sex", "view"), calibrate=True)
    test, validation = predicted(1, "test", 0), predicted(2, "val", 100)
    chosen = operating_points.choose(validation.targets, validation.mean, RULE)
    by = {"sex": np.array(["female", "male"] * 40), "view": np.full(80, "PA")}
    expected = subgroups.compare(
        test.targets, test.mean, LABELS, chosen, by, test.patients, resamples=20
    )
    found = pd.read_csv(run.folder / "subgroups.csv")
    assert found["value"].tolist() == pytest.approx(expected.values["value"].tolist())
    shown = pd.read_csv(folder / "subgroups.csv")
    assert shown[["row", "seed", "subgroup"]].values.tolist() == [
        ["R", 0, "sex: female"],
        ["R", 0, "sex: male"],
        ["R", 0, "view: PA"],
    ]
    temperature = uncertainty.temperature(validation.targets, validation.mean)
    calibrated = pd.read_csv(run.folder / "calibration.csv")
    assert f"ECE, temperature {temperature:.3f}" in calibrated
    assert (run.folder / "reliability.svg").exists()


def test_phantoms_are_named_wherever_their_numbers_stand(run):
    folder = write(run, phantom=True, by=("sex",))
    for path in (folder / "subgroups.md", run.folder / "subgroups.svg"):
        assert "drawn phantoms" in path.read_text()


def test_predictions_that_others_released_are_left_out(run):
    folder = write(run._replace(digest=""))
    assert not (folder / "operating-points.csv").exists()


def test_rescore_knows_a_runs_images_and_its_validation(run, capsys):
    path = run.folder / runs.FINISHED
    assert rescore("--predictions", path, "--by", "sex", "--resamples", "20") == 0
    said = capsys.readouterr().out
    assert "sex: female" in said
    assert "chosen on validation images" in said
    assert rescore("--predictions", path, "--by", "age", "--resamples", "20") == 2
    assert "Nothing says the age of these images" in capsys.readouterr().err
