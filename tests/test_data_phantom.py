"""Phantoms (synthetic radiographs): layouts, labels, visible findings, reproducible bytes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from data import DataError, chestmnist, chestxray14, chexpert, label_tree, labels, plco
from data.datasets import DATASETS
from data.images import read_gray
from data.phantom import drawing, layouts
from data.phantom import labels as phantom_labels
from data.phantom.__main__ import sheet
from data.phantom.film import Pose
from data.phantom.findings import PAINT, RESHAPE
from data.phantom.layouts import Shot
from tests.golden import make_phantoms

IMAGES, SIZE = 90, 48
STILL = Pose(noise=0.0)  # no misalignment, no writing, no noise


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Return the folder of each dataset's phantoms, as given to its reader."""
    root = tmp_path_factory.mktemp("phantoms")
    return {
        dataset: drawing.write(dataset, root / dataset, IMAGES, SIZE, seed=3, progress=False)
        for dataset in DATASETS
    }


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _plco(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(folder / f"{name}_set_delete0.0.csv") for name in ("train", "val", "test")]


def test_phantoms_are_unchanged_since_their_version():
    """If this fails on purpose, raise drawing.VERSION and run tests/golden/make_phantoms.py."""
    with np.load(make_phantoms.GOLDEN) as golden:
        assert golden["version"] == drawing.VERSION
        hashes = dict(zip(golden["files"].tolist(), golden["hashes"].tolist(), strict=True))
        assert make_phantoms.label_files() == hashes
        for name, drawn in make_phantoms.pictures().items():
            tolerance = 1e-3 if name.endswith("boxes") else 1  # of 256 gray levels, of 16 pixels
            np.testing.assert_allclose(
                drawn.astype(float), golden[name].astype(float), atol=tolerance, err_msg=name
            )


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_named_image_is_there_and_nothing_else(folders, dataset):
    folder = folders[dataset]
    if dataset == "chestxray14":
        named = "images/" + pd.read_csv(folder / "Data_Entry_2017_v2020.csv")["Image Index"]
    elif dataset == "plco":
        named = "images/" + pd.concat(_plco(folder))["img_name"] + ".png"
    elif dataset == "chestmnist":
        assert {path.name for path in folder.iterdir()} == {
            f"chestmnist_{SIZE}.npz",
            "phantom.json",
            "phantom_findings.csv",
        }
        frame = chestmnist.read(folder)
        assert len(frame) == IMAGES
        assert read_gray(folder / frame["image_path"][0], SIZE).std() > 20
        return
    else:
        tables = [pd.read_csv(folder / f"{name}.csv") for name in ("train", "valid", "test")]
        named = pd.concat(tables)["Path"].str.removeprefix(f"{folder.name}/")
    drawn = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".png", ".jpg")
    }
    assert named.is_unique
    assert len(named) == IMAGES
    assert set(named) == drawn
    image = cv2.imread(str(folder / named.iloc[0]), cv2.IMREAD_UNCHANGED)
    assert image.shape == (SIZE, SIZE)
    assert image.dtype == np.uint8
    assert image.std() > 20
    assert json.loads((folder / "phantom.json").read_text())["dataset"] == dataset


def test_the_readers_read_back_every_label(folders):
    frame = chestxray14.read(folders["chestxray14"])
    table = pd.read_csv(folders["chestxray14"] / "Data_Entry_2017_v2020.csv")
    for label in labels.CHESTXRAY14:
        listed = (
            table["Finding Labels"].str.split("|").map(lambda found, label=label: label in found)
        )
        read = frame.set_index("image_path")[label].loc["images/" + table["Image Index"]]
        np.testing.assert_array_equal(read, listed)

    frame = chexpert.read(folders["chexpert"]).set_index("image_path")
    for split in ("train", "valid", "test"):
        table = pd.read_csv(folders["chexpert"] / f"{split}.csv")
        paths = table["Path"].str.removeprefix("CheXpert-v1.0-small/")
        assert (frame["split"].loc[paths] == split).all()
        columns = list(labels.CHEXPERT)
        np.testing.assert_array_equal(frame[columns].loc[paths], table[columns])  # NaN for NaN

    frame = plco.read(folders["plco"]).set_index("image_path")
    table = pd.concat(_plco(folders["plco"]))
    paths = "images/" + table["img_name"] + ".png"
    np.testing.assert_array_equal(frame[list(labels.PLCO)].loc[paths], table[list(labels.PLCO)])
    assert frame.attrs["phantom"]


def test_chestxray14_layout(folders):
    folder = folders["chestxray14"]
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    assert list(table)[:7] == [
        "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
        "Patient Gender", "View Position",
    ]  # fmt: skip
    found = set("|".join(table["Finding Labels"]).split("|"))
    assert found <= {*labels.CHESTXRAY14, labels.NO_FINDING}
    assert not table["Finding Labels"].str.contains(r"No Finding\||\|No Finding").any()
    lists = [(folder / f"{name}_list.txt").read_text().split() for name in ("train_val", "test")]
    assert sorted(lists[0] + lists[1]) == sorted(table["Image Index"])
    patients = [{name.split("_")[0] for name in names} for names in lists]
    assert not patients[0] & patients[1]
    assert 0.12 < len(lists[1]) / IMAGES < 0.34


def test_plco_lists_are_closed_and_patient_disjoint(folders, shared_data):
    tables = _plco(folders["plco"])
    released = pd.read_csv(
        shared_data / "plco-official-splits" / "val_set_delete0.0.csv.gz", nrows=3
    )
    seen: set[str] = set()
    for table in tables:
        assert list(table) == list(released)
        targets = table[list(labels.PLCO)].to_numpy(np.float32)
        leaves = targets[:, label_tree.leaves(label_tree.PLCO)]
        closed = np.zeros_like(targets)
        closed[:, label_tree.leaves(label_tree.PLCO)] = leaves
        np.testing.assert_array_equal(targets, label_tree.close(closed, label_tree.PLCO))
        assert (table[[f"{label} preserve bool" for label in labels.PLCO]] == 1).all(axis=None)
        assert not seen & set(table["plco_id"])
        seen |= set(table["plco_id"])


def test_chexpert_layout(folders):
    folder = folders["chexpert"]
    details = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"]
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in ("train", "valid", "test")}
    visual = pd.read_csv(folder / "train_visualCheXbert.csv")
    for table in (tables["train"], tables["valid"], visual):
        assert list(table) == [*details, *labels.CHEXPERT]
    assert list(tables["test"]) == ["Path", *labels.CHEXPERT]
    train = tables["train"][list(labels.CHEXPERT)].to_numpy()
    assert {-1.0, 0.0, 1.0} <= set(train[~np.isnan(train)])
    assert np.isnan(train).any()
    for table in (tables["valid"], tables["test"], visual):
        targets = table[list(labels.CHEXPERT)].to_numpy(np.float32)
        assert set(targets.ravel()) == {0.0, 1.0}
        assert not label_tree.violations(targets, label_tree.CHEXPERT).any()
        findings = targets[:, 1:-1].any(axis=1)  # devices are no finding
        np.testing.assert_array_equal(targets[:, 0], ~findings)
    assert list(visual["Path"]) == list(tables["train"]["Path"])
    patients = [set(table["Path"].str.split("/").str[2]) for table in tables.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))
    views = tables["train"]["Frontal/Lateral"].value_counts(normalize=True)
    assert 0.7 < views["Frontal"] < 0.97
    assert (
        tables["train"].loc[tables["train"]["Frontal/Lateral"] == "Lateral", "AP/PA"].isna().all()
    )


def test_chexpert_readers_have_the_released_columns_and_differ_in_skill(folders, shared_data):
    folder = folders["chexpert"]
    released = shared_data / "released" / "chexpert-test"
    truth = pd.read_csv(folder / "groundtruth.csv")
    assert list(truth) == list(pd.read_csv(released / "groundtruth.csv"))
    images = pd.read_csv(folder / "test.csv")
    studies = images["Path"].str.rsplit("/", n=1).str[0].str.split("/", n=1).str[1].unique()
    assert list(truth["Study"]) == [f"CheXpert-v1.0/{study}" for study in studies]
    names = list(labels.CHEXPERT)
    for name in phantom_labels.READERS:
        called = pd.read_csv(folder / "radiologists" / f"{name}.csv")
        assert list(called) == list(pd.read_csv(released / "radiologists" / f"{name}.csv"))
        assert list(called["Study"]) == list(truth["Study"])
        assert 0.02 < (called[names] != truth[names]).to_numpy().mean() < 0.3


def test_the_first_reader_sees_more_than_the_last():
    rng = np.random.default_rng(0)
    truth = rng.random((4000, len(labels.CHEXPERT))) < 0.3
    strengths = np.clip(rng.normal(0.9, 0.25, truth.shape), 0.3, 1.4)
    skill = []
    for name in phantom_labels.READERS:
        called = phantom_labels.reader(truth, strengths, name, rng)[
            :, 7:
        ]  # labels without children
        known = truth[:, 7:]
        skill.append(called[known].mean() - called[~known].mean())  # Youden's index
    assert skill == sorted(skill, reverse=True)
    assert 0.3 < skill[-1] < skill[0] < 0.95


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_sampled_prevalences_match_the_dataset(dataset, floor):
    wanted = phantom_labels.prevalences(dataset, floor)
    if floor == 0:
        np.testing.assert_allclose(wanted, DATASETS[dataset].prevalence, rtol=0.02)
    assert wanted.min() >= floor
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(20000), 3)
    uniforms = phantom_labels.persistent_uniforms(rng, patients, len(wanted))
    truth = phantom_labels.sample(dataset, wanted, uniforms)
    assert not label_tree.violations(truth, phantom_labels.TREES[dataset]).any()
    np.testing.assert_allclose(truth.mean(axis=0), wanted, rtol=0.07, atol=0.0012)
    for node in label_tree.inner(phantom_labels.TREES[dataset]):
        if phantom_labels.NAMES[dataset][node] not in phantom_labels.FINDINGS_WITH_CHILDREN:
            children = label_tree.parent_matrix(phantom_labels.TREES[dataset])[:, node] > 0
            np.testing.assert_array_equal(truth[:, node], truth[:, children].any(axis=1))
    same = truth[::3] == truth[1::3]
    assert same.mean() > (truth[::3] == np.roll(truth[1::3], 1, axis=0)).mean()  # it persists
    released = phantom_labels.noisy(dataset, truth, wanted, rng)
    np.testing.assert_allclose(released.mean(axis=0), wanted, rtol=0.12, atol=0.002)
    assert 0.001 < (released != truth).mean() < 0.1


def test_uncertain_and_blank_labels_have_the_released_shares():
    rng = np.random.default_rng(1)
    wanted = phantom_labels.prevalences("chexpert")
    uniforms = rng.random((40000, len(wanted)))
    truth = phantom_labels.sample("chexpert", wanted, uniforms)
    released = phantom_labels.chexpert_uncertain(phantom_labels.chexpert_table(truth), rng)
    unsure = (released == -1).mean(axis=0)
    np.testing.assert_allclose(unsure, phantom_labels.UNCERTAIN, rtol=0.1, atol=0.002)
    competition = [labels.CHEXPERT.index(label) for label in labels.CHEXPERT_COMPETITION]
    np.testing.assert_allclose(  # positives of the released train.csv
        (released == 1).mean(axis=0)[competition], [0.149, 0.121, 0.066, 0.234, 0.386], atol=0.04
    )
    assert 0.5 < np.isnan(released).mean() < 0.85


def _shot(view: str, findings: tuple[tuple[str, float], ...], patient: int = 4) -> Shot:
    return Shot("", 0, patient, patient % 2 == 1, view, findings)


@pytest.mark.parametrize("label", sorted(PAINT))
@pytest.mark.parametrize("view", ["PA", "LATERAL"])
def test_each_finding_changes_the_image_in_its_box(label, view):
    seen = []
    for patient in range(4):
        plain, nothing = drawing.draw(_shot(view, (), patient), 128, 7, STILL)
        ill, planted = drawing.draw(_shot(view, ((label, 1.0),), patient), 128, 7, STILL)
        assert nothing == []
        difference = np.abs(ill.astype(int) - plain)
        assert (difference > 6).sum() > 12, f"patient {patient} shows no {label}"
        for name, (x, y, width, height) in planted:
            assert name == label
            assert x >= 0 and y >= 0 and x + width <= 1 and y + height <= 1  # noqa: PT018
            rows = slice(int(y * 128), int(np.ceil((y + height) * 128)))
            columns = slice(int(x * 128), int(np.ceil((x + width) * 128)))
            if label not in RESHAPE:  # those also move the rest of the chest
                seen.append((difference[rows, columns].mean(), difference.mean()))
    if seen and label not in RESHAPE:
        inside, everywhere = np.mean(seen, axis=0)
        assert inside > 2 * everywhere


@pytest.mark.parametrize(
    ("label", "sign"),
    [("Mass", 1), ("Effusion", 1), ("Consolidation", 1), ("Granuloma", 1), ("Pneumothorax", -1)],
)
def test_findings_are_brighter_or_darker_than_the_chest_without_them(label, sign):
    change = []
    for patient in range(6):
        plain, _ = drawing.draw(_shot("PA", (), patient), 128, 7, STILL)
        ill, planted = drawing.draw(_shot("PA", ((label, 1.0),), patient), 128, 7, STILL)
        for _, (x, y, width, height) in planted:
            rows = slice(int(y * 128), int(np.ceil((y + height) * 128)))
            columns = slice(int(x * 128), int(np.ceil((x + width) * 128)))
            difference = ill[rows, columns].astype(float) - plain[rows, columns]
            change.append(np.percentile(sign * difference, 85))
    assert np.mean(change) > 5


def test_a_pose_moves_the_planted_box_with_the_picture():
    shot = _shot("PA", (("Mass", 1.2),))
    still = drawing.draw(shot, 128, 7, STILL)[1][0][1]
    shift = drawing.draw(shot, 128, 7, Pose(noise=0, shift=(0.04, -0.03)))[1][0][1]
    np.testing.assert_allclose(np.subtract(shift, still), (0.04, -0.03, 0, 0), atol=1e-6)
    picture = drawing.draw(shot, 128, 7, STILL)[0].astype(np.float32)
    moved = drawing.draw(shot, 128, 7, Pose(noise=0, shift=(0.0625, 0.0)))[0].astype(np.float32)
    assert np.abs(moved[:, 8:] - picture[:, :-8]).max() < 2  # 8 of 128 pixels


def test_a_patient_keeps_the_anatomy_and_another_has_another():
    def picture(patient: int, number: int) -> np.ndarray:
        shot = Shot("", number, patient, False, "PA", ())
        return drawing.draw(shot, 64, 7, STILL)[0].astype(float)

    np.testing.assert_array_equal(picture(1, 0), picture(1, 1))
    assert np.abs(picture(1, 0) - picture(2, 0)).mean() > 3


def test_findings_table_lies_inside_the_images(folders):
    for folder in folders.values():
        table = pd.read_csv(folder / "phantom_findings.csv")
        assert list(table) == ["image_path", "label", "x", "y", "width", "height"]
        assert len(table) > 10
        assert all(read_gray(folder / path, 8).any() for path in table["image_path"][::20])
        assert (table[["x", "y", "width", "height"]] >= 0).all(axis=None)
        assert (table["x"] + table["width"] <= 1.0001).all()
        assert (table["y"] + table["height"] <= 1.0001).all()
        assert (table[["width", "height"]] > 0).all(axis=None)


def test_same_seed_same_bytes_in_one_process_or_many(folders, tmp_path, monkeypatch):
    again = drawing.write("plco", tmp_path / "again", IMAGES, SIZE, seed=3, progress=False)
    assert _hashes(again) == _hashes(folders["plco"])
    monkeypatch.setattr(drawing, "POOL_FROM", 1)
    pooled = drawing.write("plco", tmp_path / "pooled", IMAGES, SIZE, seed=3, progress=False)
    assert _hashes(pooled) == _hashes(folders["plco"])
    other = drawing.write("plco", tmp_path / "other", 20, SIZE, seed=4, progress=False)
    assert not set(_hashes(other).values()) & set(_hashes(pooled).values())


def test_a_finished_folder_is_left_alone_and_an_unfinished_one_redrawn(tmp_path, capsys):
    folder = drawing.write("plco", tmp_path / "p", 20, 32, seed=1, progress=False)
    before = _hashes(folder)
    image = next((folder / "images").iterdir())
    times = image.stat().st_mtime_ns
    drawing.write("plco", tmp_path / "p", 20, 32, seed=1)
    assert "already" in capsys.readouterr().out
    assert image.stat().st_mtime_ns == times
    (folder / "phantom.json").rename(folder / "phantom.unfinished.json")  # as a kill leaves it
    image.unlink()
    drawing.write("plco", tmp_path / "p", 20, 32, seed=1, progress=False)
    assert _hashes(folder) == before


def test_foreign_folders_are_refused(tmp_path):
    drawing.write("plco", tmp_path / "p", 20, 32, seed=1, progress=False)
    with pytest.raises(DataError, match="seed differ"):
        drawing.write("plco", tmp_path / "p", 20, 32, seed=2, progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        drawing.write("plco", tmp_path / "mine", 20, 32, seed=2, progress=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="--images 3: give a number from 20 to"):
        drawing.write("plco", tmp_path / "few", 3, 32, seed=2, progress=False)


def test_command_line(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "data.phantom", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    made = run("chexpert", "--out", str(tmp_path / "c"), "--images", "20", "--size", "32")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().endswith(str(tmp_path / "c" / "CheXpert-v1.0-small"))
    refused = run("plco", "--out", str(tmp_path / "c"), "--images", "20", "--size", "32")
    assert refused.returncode == 2
    assert "dataset differ" in refused.stderr
    assert "Traceback" not in refused.stderr
    for arguments in (
        ("sheet", "--out", str(tmp_path)),  # a folder
        ("sheet", "--out", str(tmp_path / ("x" * 300))),
        ("sheet", "--out", str(tmp_path / "sheet.png"), "--seed", "-1"),
        ("plco", "--out", str(tmp_path / ("x" * 300)), "--images", "20", "--size", "32"),
    ):
        refused = run(*arguments)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", ["", "[]", "3", '{"dataset": "plco"}', "\udcff"])
def test_a_damaged_record_of_the_settings_is_refused(tmp_path, content):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "phantom.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="delete that folder"):
        drawing.write("plco", tmp_path / "p", 20, 32, seed=1, progress=False)


def test_contact_sheet(tmp_path):
    sheet(tmp_path / "sheet.png", seed=0)
    picture = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_UNCHANGED)
    assert picture.ndim == 2
    assert min(picture.shape) > 600
    assert (tmp_path / "sheet.png").stat().st_size < 600_000


def test_patients_of_a_large_chexpert_are_in_one_set_each():
    """The released numbers leave 200 for the patients of the validation set."""
    split = np.repeat([0, 1, 2], [5, 300, 40])
    named = layouts._patient_numbers(split)
    assert len(set(named)) == len(named)
    assert (named[0], named[5], named[-1]) == (1, 64541, 64541 + 339)
    few = layouts._patient_numbers(np.array([0, 1, 2, 0]))
    assert few.tolist() == [1, 64541, 64741, 2]  # as released
