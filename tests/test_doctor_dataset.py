"""The doctor's checks of a dataset's folder, on phantoms and on released label files."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data import chestxray14, label_tree, labels
from data.datasets import DATASETS
from data.phantom import drawing
from reproduce.doctor import dataset
from reproduce.doctor.machine import OK, PROBLEM, WARNING, Finding


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    return {
        name: drawing.write(name, folder / name, 60, 32, seed=1, progress=False)
        for name in DATASETS
    }


@pytest.mark.parametrize("name", DATASETS)
def test_phantoms_of_every_layout_have_no_problem(folders, name):
    frame = dataset.read(folders[name], name)
    findings = list(dataset.findings(folders[name], name, frame, 32))
    assert {"layout", "images", "patients", "hierarchy", "prevalence", "decoding"} <= {
        finding.topic for finding in findings
    }
    assert all(finding.state != PROBLEM for finding in findings)
    assert "drawn phantoms" in findings[0].text


def test_damaged_and_missing_images_are_named(folders, tmp_path):
    folder = shutil.copytree(folders["chestxray14"], tmp_path / "copy")
    first, second = sorted((folder / "images").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:300])
    second.unlink()
    frame = dataset.read(folder, "chestxray14")
    found = {
        finding.topic: finding for finding in dataset.findings(folder, "chestxray14", frame, 32)
    }
    assert found["images"].state == found["decoding"].state == PROBLEM
    assert f"images/{first.name} is truncated" in found["decoding"].text
    assert second.name in found["images"].text
    assert "--allow-missing" in found["images"].fix


def test_patients_in_two_sets_are_a_problem(folders, tmp_path):
    folder = shutil.copytree(folders["plco"], tmp_path / "copy")
    train, test = (next(folder.rglob(f"{name}_set_delete0.0.csv*")) for name in ("train", "test"))
    header, *lines = test.read_text().splitlines()
    patient = train.read_text().splitlines()[1].split(",")[1]
    cells = lines[0].split(",")
    assert header.split(",")[1] == "plco_id"
    test.write_text("\n".join([header, ",".join([cells[0], patient, *cells[2:]]), *lines[1:]]))
    found = dataset.read(folder, "plco")
    assert isinstance(found, Finding)
    assert found.state == PROBLEM
    assert patient in found.text


def test_open_labels_are_a_share_in_chexpert_and_a_problem_in_plco(folders):
    frame = dataset.read(folders["plco"], "plco")
    assert dataset.closure(frame, "plco").state == OK
    child = labels.PLCO[int(label_tree.leaves(label_tree.PLCO)[0])]
    frame.loc[:2, list(labels.PLCO)] = 0.0
    frame.loc[:2, child] = 1.0
    finding = dataset.closure(frame, "plco")
    assert finding.state == PROBLEM
    assert f"{3 / len(frame):.1%} of images" in finding.text
    assert child in finding.text
    frame = dataset.read(folders["chexpert"], "chexpert")
    frame[list(labels.CHEXPERT)] = np.nan
    frame.loc[0, ["Cardiomegaly", "Edema"]] = 1.0
    frame.loc[0, "Lung Opacity"] = -1.0  # Edema's parent is uncertain, Cardiomegaly's is blank
    finding = dataset.closure(frame, "chexpert")
    assert finding.state == OK
    assert "most often Cardiomegaly" in finding.text
    frame.loc[0, "Cardiomegaly"] = 0.0
    assert "closed" in dataset.closure(frame, "chexpert").text


def test_labels_without_a_positive_test_image_are_named(folders):
    frame = dataset.read(folders["chestxray14"], "chestxray14")
    frame.loc[frame["split"] == "test", "Mass"] = 0.0
    *_, finding = dataset.prevalence(frame, "chestxray14")
    assert finding.state == WARNING
    assert "Mass" in finding.text


def test_a_complete_dataset_far_from_its_shares_is_pointed_out(shared_data):
    """The whole released label file, whose images are not needed to count."""
    folder = shared_data / "chestxray14-labels"
    table = chestxray14.reading.read_table(
        folder / "Data_Entry_2017_v2020.csv.gz", ("Image Index", "Finding Labels")
    )
    frame = table["Finding Labels"].str.get_dummies().astype(np.float32).assign(split="train_val")
    frame.attrs = {"complete": True, "phantom": False}
    (finding,) = dataset.prevalence(frame, "chestxray14")
    assert finding.state == OK
    assert "Infiltration 17.7% (17.7%)" in finding.text
    frame["Mass"] = 1 - frame["Mass"]
    (finding,) = dataset.prevalence(frame, "chestxray14")
    assert finding.state == WARNING
    assert "Look at Mass:" in finding.fix


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 seconds"),
        (100, "100 seconds"),
        (7000, "117 minutes"),
        (9000, "2 hours"),
        (1e6, "12 days"),
    ],
)
def test_durations_are_readable(seconds, text):
    assert dataset.duration(seconds) == text
