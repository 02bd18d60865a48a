"""Knobs of the phantoms: the defaults change nothing, and each knob has its stated effect."""

import json

import numpy as np
import pandas as pd
import pytest

from data import DataError, chestxray14, label_tree, plco
from data.datasets import DATASETS
from data.phantom import drawing
from data.phantom import labels as drawn_labels
from data.phantom.__main__ import main
from data.phantom.film import Pose
from data.phantom.findings import LOOK_ALIKE
from data.phantom.knobs import DEFAULT_KNOBS, TEST_ODDS, Knobs
from data.phantom.layouts import Shot

SHOT = Shot("", 5, 5, False, "PA", (("Mass", 1.1),))


def plan(tmp_path, dataset, knobs, images=3000):
    """Write a dataset's label files; return the findings to draw in each image."""
    tmp_path.mkdir(exist_ok=True)
    wanted = drawn_labels.prevalences(dataset, 0.03)
    return DATASETS[dataset].write_layout(
        tmp_path, images, wanted, np.random.default_rng([0, 3]), knobs
    )


@pytest.mark.parametrize("dataset", DATASETS)
def test_default_knobs_change_nothing(tmp_path, dataset):
    shots = plan(tmp_path / "a", dataset, DEFAULT_KNOBS, 200)
    assert shots == plan(tmp_path / "b", dataset, Knobs(alike=0.5, misaligned=0.1), 200)
    image = drawing.draw(shots[0], 48, 0)[0]
    assert (image == drawing.draw(shots[0], 48, 0, knobs=Knobs())[0]).all()


def test_knobs_are_recorded_unless_at_their_default(tmp_path):
    for knobs in (Knobs(), Knobs(odds=3.0, findings=("Mass",))):
        drawing.write(
            "chestxray14", tmp_path / f"{knobs.odds}", 20, 32, 0, knobs=knobs, progress=False
        )
    plain, turned = (
        json.loads((tmp_path / f"{odds}" / "phantom.json").read_text()) for odds in (0.0, 3.0)
    )
    assert {*turned} - {*plain} == {"odds", "findings"}
    with pytest.raises(DataError, match="odds"):
        drawing.write("chestxray14", tmp_path / "0.0", 20, 32, 0, knobs=Knobs(odds=2))


def test_odds_are_those_of_training_and_the_test_set_stays(tmp_path):
    frames = {}
    for odds in (4, 60):
        knobs = Knobs(label_noise=0, odds=odds, findings=("Mass", "Edema"))
        folder = tmp_path / f"{odds}"
        plan(folder, "chestxray14", knobs, 6000)
        table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv").set_index("Image Index")
        test = (folder / "test_list.txt").read_text().split()
        table["mass"] = table["Finding Labels"].str.contains("Mass")
        frames[odds] = table, test
        trained = table.drop(test)
        assert trained["mass"].mean() == pytest.approx(1 / (1 + odds), rel=0.15)
        found = {name for text in table["Finding Labels"] for name in text.split("|")}
        assert found == {"Mass", "Edema", "No Finding"}
    (few, test), (many, same) = frames[4], frames[60]
    assert test == same
    assert (few.loc[test, "mass"] == many.loc[test, "mass"]).all()
    assert few.loc[test, "mass"].mean() == pytest.approx(1 / (1 + TEST_ODDS), rel=0.15)


def test_findings_come_together_at_the_same_prevalence(tmp_path):
    names = ("Mass", "Edema", "Effusion")
    columns = [drawn_labels.NAMES["chestxray14"].index(name) for name in names]
    rng = np.random.default_rng(0)
    drawn = {}
    for together in (0.0, 0.8):
        knobs = Knobs(odds=4, together=together, findings=names)
        uniforms = np.random.default_rng(1).random((20000, 19))
        drawn[together] = drawn_labels.sample_by_odds(
            "chestxray14", knobs, np.ones(20000, bool), uniforms, rng
        )[:, columns]
        assert np.allclose(drawn[together].mean(axis=0), 0.2, atol=0.01)
    correlation = {key: np.corrcoef(value.T)[0, 1] for key, value in drawn.items()}
    assert abs(correlation[0.0]) < 0.03
    assert correlation[0.8] > 0.5


def test_leaf_labels_by_odds_close_the_tree(tmp_path):
    drawn = drawn_labels.sample_by_odds(
        "plco",
        Knobs(odds=9),
        np.ones(500, bool),
        np.random.default_rng(0).random((500, 19)),
        np.random.default_rng(1),
    ).astype(np.float32)
    assert (label_tree.close(drawn, label_tree.PLCO) == drawn).all()
    leaves = label_tree.leaves(label_tree.PLCO)
    assert (drawn[:, -1] == drawn[:, leaves].max(axis=1)).all()


def test_look_alikes_end_the_same_and_the_named_label_keeps_its_box():
    as_mass = drawing.draw(SHOT, 96, 0)
    halfway = drawing.draw(SHOT, 96, 0, knobs=Knobs(alike=0.5))
    alike = drawing.draw(SHOT, 96, 0, knobs=Knobs(alike=1))
    assert alike[1] == halfway[1] == as_mass[1]  # boxes are of the label
    difference = [np.abs(as_mass[0].astype(int) - image).mean() for image, _ in (halfway, alike)]
    assert 0 < difference[0] < difference[1]
    assert {*LOOK_ALIKE.values()}.isdisjoint(LOOK_ALIKE)  # a look-alike looks like itself
    plain = Shot("", 5, 5, False, "PA", (("Hernia", 1.1),))
    same = drawing.draw(plain, 64, 0, knobs=Knobs(alike=1))[0]
    assert (same == drawing.draw(plain, 64, 0)[0]).all()


def test_larger_misalignment_moves_further_in_the_same_direction():
    def pose(share):
        drawn = drawing.sample_pose(np.random.default_rng(0), "PA")
        drawn.misalign(share, np.random.default_rng(1))
        return np.array([*drawn.shift, drawn.angle])

    still, some, more = pose(0.0), pose(0.1), pose(0.2)
    assert np.allclose(more - still, 2 * (some - still))
    assert (np.abs(more - still) <= [0.2, 0.2, 18]).all()
    assert (drawing.draw(SHOT, 64, 0, knobs=Knobs(misaligned=0.2))[0] != 0).any()


def test_no_label_noise_releases_the_truth(tmp_path):
    drawing.write("plco", tmp_path, 60, 32, 0, 0.1, knobs=Knobs(label_noise=0), progress=False)
    frame = plco.read(tmp_path)
    shots = plan(tmp_path / "again", "plco", Knobs(label_noise=0), 60)
    assert len(shots) == len(frame)
    # floor .1 here and .03 in plan: compared with what is drawn in this folder
    lines = pd.read_csv(tmp_path / "phantom_findings.csv")
    for path, of_image in lines.groupby("image_path"):
        row = frame.set_index("image_path").loc[path]
        assert all(row[label] == 1 for label in of_image["label"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alike", "2"], "alike is 2.0; give a number from 0 to 1"),
        (["--together", "0.5"], "need odds"),
        (["--odds", "4", "--findings", "Moss"], "no finding Moss"),
        (["--misaligned", "-1"], "misaligned is -1.0"),
    ],
)
def test_a_knob_that_cannot_be_drawn_is_named(tmp_path, capsys, words, message):
    assert main(["chestxray14", "--out", str(tmp_path / "p"), "--images", "20", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_the_command_draws_with_knobs(tmp_path):
    words = ["--images", "20", "--size", "32", "--odds", "1", "--findings", "Mass", "Nodule"]
    assert main(["chestxray14", "--out", str(tmp_path / "p"), *words]) == 0
    frame = chestxray14.read(tmp_path / "p")
    assert frame[["Mass", "Nodule"]].to_numpy().any()


def test_ctrl_c_ends_with_130(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.phantom.__main__.write", stopped)
    assert main(["plco", "--out", str(tmp_path / "p")]) == 130
    assert "start over" in capsys.readouterr().err


def test_misalignment_is_symmetric():
    poses = []
    for seed in range(400):
        pose = Pose()
        pose.misalign(0.2, np.random.default_rng(seed))
        poses.append([*pose.shift, pose.angle / 90])
    drawn = np.array(poses) / 0.2
    assert drawn.min() >= -1
    assert drawn.max() <= 1
    assert (abs(drawn).max(axis=0) > 0.95).all()
    assert (abs(drawn.mean(axis=0)) < 0.1).all()
