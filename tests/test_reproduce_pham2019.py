"""Pham 2019: which images teach which label, what each flag changes, and the whole script once."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from data import labels
from data.phantom import drawing
from evaluation import predictions, probabilities, published
from evaluation.predictions import Predictions
from reproduce import RunError, pham2019
from reproduce.engine import options
from reproduce.engine.rows import Row, describe
from reproduce.pham2019 import (
    AS_PRINTED,
    CENTRE,
    CLOSED,
    ENSEMBLE,
    REPAIRED,
    STEP_1,
    TABLE_1,
    TTA,
    Config,
)
from tests.nih import nih_frame

ROOT = Path(__file__).parents[1]
NAMES = labels.CHEXPERT
NO = np.nan
BY_CT = [name for name, (_, by_ct) in TABLE_1.items() if by_ct]
BEST, PRINTED_BEST = pham2019.BEST + REPAIRED, pham2019.BEST + AS_PRINTED
CENTRE_CROP = "U-Ones" + CENTRE


def frame_of(released: dict[str, list[float]]) -> pd.DataFrame:
    """Images with these released labels, all others blank."""
    count = len(next(iter(released.values())))
    table = pd.DataFrame(np.nan, index=range(count), columns=list(NAMES)).assign(**released)
    return table.assign(image_path=[f"train/{number}" for number in range(count)])


@pytest.fixture
def frame() -> pd.DataFrame:
    return frame_of(
        {
            "Enlarged Cardiomediastinum": [np.nan, -1, 0, 1],
            "Cardiomegaly": [1, 1, 0, 0],
            "Lung Opacity": [1, -1, 0, 1],
            "Consolidation": [1, -1, 0, 1],
            "Pneumonia": [0, -1, 0, -1],
        }
    )


def rows(**changes) -> dict:
    config = dataclasses.replace(Config(), **changes)
    return {row.name: row for row in pham2019.rows(config, "chexpert")}


def learnt(row: Row, frame: pd.DataFrame) -> np.ndarray:
    return row.task.targets(frame).learnt


def column(row: Row, frame: pd.DataFrame, label: str) -> np.ndarray:
    return learnt(row, frame)[:, NAMES.index(label)]


def test_all_printed_rows_are_there():
    printed = published.load("pham2019")
    assert [*TABLE_1] == [*printed[printed["table"] == "Table 1"]["row"].unique()]
    plan = rows()
    assert plan.keys() >= {name for name in TABLE_1 if name not in BY_CT}
    for reading in (AS_PRINTED, REPAIRED):
        of_reading = {name + reading for name in (*BY_CT, ENSEMBLE)}
        of_reading |= {name + reading + TTA for name in (pham2019.BEST, ENSEMBLE)}
        assert plan.keys() >= of_reading
    assert CENTRE_CROP in plan


def test_policies_differ_in_uncertain_targets_alone(frame):
    plan = rows()
    certain = frame[list(NAMES)].to_numpy() != -1
    for name in ("Ignore", "U-Zeros", "U-Zeros+LSR", "U-Ones+LSR"):
        row, ones = plan[name], plan["U-Ones"]
        own, of_ones = row.task.targets(frame), ones.task.targets(frame)
        np.testing.assert_array_equal(own.learnt[certain], of_ones.learnt[certain])
        assert not np.array_equal(own.learnt[~certain], of_ones.learnt[~certain])
        np.testing.assert_array_equal(own.truth, of_ones.truth)
        assert not row.centre
        rates = [[each.fit.learning_rate(epoch, []) for epoch in range(5)] for each in (row, ones)]
        assert rates[0] == rates[1]
        np.testing.assert_allclose(rates[0], [1e-4, 1e-5, 1e-6, 1e-7, 1e-8])


def test_uncertain_parents_follow_the_policy(frame):
    """Image 1: Consolidation and Lung Opacity are uncertain; is Pneumonia learnt there?"""
    plan = rows()
    known = {
        name: not np.isnan(column(plan[name + REPAIRED], frame, "Pneumonia")[1]) for name in BY_CT
    }
    assert known["U-Ones+CT"]
    assert known["U-Ones+CT+LSR"]
    assert not known["U-Zeros+CT"]
    assert not known["U-Zeros+CT+LSR"]
    assert not known["Ignore+CT"]


PARENT = "Enlarged Cardiomediastinum"  # blank, then uncertain, where Cardiomegaly is positive


def test_a_positive_child_fills_its_blank_parent_under_ct_alone(frame):
    plan = rows()
    zeros, ones, ignore = (plan[f"{name}+CT{REPAIRED}"] for name in ("U-Zeros", "U-Ones", "Ignore"))
    np.testing.assert_array_equal(column(plan["U-Zeros"], frame, PARENT), [0, 0, 0, 1])
    np.testing.assert_array_equal(column(zeros, frame, PARENT), [1, 0, 0, 1])
    np.testing.assert_array_equal(column(zeros, frame, "Cardiomegaly"), [1, NO, NO, 0])
    np.testing.assert_array_equal(column(ones, frame, PARENT), [1, 1, 0, 1])
    np.testing.assert_array_equal(column(ignore, frame, PARENT), [1, NO, 0, 1])
    for name in BY_CT:  # step 2 learns the last layer again, from the same
        repaired = name + REPAIRED
        np.testing.assert_array_equal(
            learnt(plan[repaired], frame), learnt(plan[repaired + STEP_1], frame)
        )


def test_step_2_is_the_head_of_step_1():
    plan = rows()
    warm = rows(warm_start=True)
    for reading in (AS_PRINTED, REPAIRED):
        for name in BY_CT:
            row, step_1 = plan[name + reading], plan[name + reading + STEP_1]
            assert (row.fit.head_only, row.start_from) == (True, step_1.name)
            assert (step_1.fit.head_only, step_1.start_from) == (False, "")
        assert warm["U-Zeros+CT+LSR" + reading + STEP_1].start_from == "U-Zeros+LSR"
        assert warm["xception" + reading + STEP_1].start_from == ""  # it has no flat network
    flat = [name for name in TABLE_1 if name not in BY_CT]
    assert not any(plan[name].fit.head_only or plan[name].start_from for name in flat)


def test_the_chain_rule_and_its_absence():
    logits = np.random.default_rng(0).normal(size=(20, len(NAMES)))
    sigmoid = probabilities.sigmoid(logits)
    plan = rows()
    product = plan[BEST].readout.probabilities(logits)
    opacity, consolidation, pneumonia = (
        NAMES.index(label) for label in ("Lung Opacity", "Consolidation", "Pneumonia")
    )
    path = sigmoid[:, [opacity, consolidation, pneumonia]].prod(axis=1)
    np.testing.assert_allclose(product[:, pneumonia], path)
    np.testing.assert_allclose(product[:, opacity], sigmoid[:, opacity])
    np.testing.assert_array_equal(plan["U-Ones"].readout.probabilities(logits), sigmoid)
    np.testing.assert_array_equal(rows(product=False)[BEST].readout.probabilities(logits), sigmoid)


@pytest.fixture
def partial_set() -> pd.DataFrame:
    """Images 0 and 3 have all three parents; 1 lacks two; 2 has a blank parent of Cardiomegaly."""
    return frame_of(
        {
            "Enlarged Cardiomediastinum": [1, 0, NO, 1],
            "Cardiomegaly": [1, 0, 1, 0],
            "Lung Opacity": [1, 1, 1, 1],
            "Edema": [0, 1, 1, 1],
            "Consolidation": [1, 0, 1, 1],
            "Pneumonia": [1, 0, 0, 0],
            "Pneumothorax": [0, 1, 0, 1],
        }
    )


def test_step_1_as_printed_sees_images_with_all_parents_positive(partial_set):
    """It learns the labels without children there, and parents nowhere; nothing is closed."""
    step_1 = rows()["U-Zeros+CT" + AS_PRINTED + STEP_1]
    np.testing.assert_array_equal(column(step_1, partial_set, "Edema"), [0, NO, NO, 1])
    np.testing.assert_array_equal(column(step_1, partial_set, "Pneumonia"), [1, NO, NO, 0])
    np.testing.assert_array_equal(column(step_1, partial_set, "Pneumothorax"), [0, NO, NO, 1])
    for parent in (PARENT, "Lung Opacity", "Consolidation"):
        assert np.isnan(column(step_1, partial_set, parent)).all()


def test_step_1_with_own_parents_learns_child_labels_alone(partial_set):
    step_1 = rows(parents="own")["U-Zeros+CT" + AS_PRINTED + STEP_1]
    np.testing.assert_array_equal(column(step_1, partial_set, "Cardiomegaly"), [1, NO, NO, 0])
    np.testing.assert_array_equal(column(step_1, partial_set, "Edema"), [0, 1, 1, 1])
    np.testing.assert_array_equal(column(step_1, partial_set, "Consolidation"), [1, 0, 1, 1])
    np.testing.assert_array_equal(column(step_1, partial_set, "Pneumonia"), [1, NO, 0, 0])
    for root in (PARENT, "Lung Opacity", "Pneumothorax", "Support Devices"):
        assert np.isnan(column(step_1, partial_set, root)).all()


def test_step_2_as_printed_is_the_ordinary_loss_on_all_images(partial_set, frame):
    """Its targets are those of the flat row of the same policy; the product is at inference."""
    plan = rows()
    for images in (partial_set, frame):
        for name in BY_CT:
            flat, step_2 = plan[name.replace("+CT", "")], plan[name + AS_PRINTED]
            np.testing.assert_array_equal(learnt(step_2, images), learnt(flat, images))
    assert step_2.readout == plan[name + REPAIRED].readout != flat.readout


def test_the_centre_crop_is_there_with_a_template_alone():
    assert CENTRE_CROP not in rows(template=False)
    assert [name for name, row in rows().items() if isinstance(row, Row) and row.centre] == [
        CENTRE_CROP
    ]


@pytest.mark.parametrize(
    ("setting", "changed", "same"),
    [
        ({"parents": "own"}, {PRINTED_BEST + STEP_1}, {PRINTED_BEST, BEST, BEST + STEP_1}),
        (
            {"product": False},
            {BEST, PRINTED_BEST},
            {BEST + STEP_1, PRINTED_BEST + STEP_1, "U-Ones+LSR"},
        ),
        ({"warm_start": True}, {BEST + STEP_1, PRINTED_BEST + STEP_1}, {BEST, "U-Ones+LSR"}),
        (
            {"close": "all"},
            {BEST, BEST + STEP_1, "U-Ones" + CLOSED},
            {"U-Ones+LSR", PRINTED_BEST, PRINTED_BEST + STEP_1},
        ),
        ({"draws": 3}, {BEST + TTA, PRINTED_BEST + TTA}, {BEST, "U-Ones"}),
        ({"transforms": "one"}, {BEST + TTA, PRINTED_BEST + TTA}, {BEST, "U-Ones"}),
    ],
)
def test_flags_change_only_the_rows_that_they_are_about(setting, changed, same):
    before, after = rows(), rows(**setting)
    other = {name for name, row in before.items() if describe(row) != describe(after[name])}
    assert changed <= other
    assert not same & other


def test_the_ensemble_averages_final_probabilities():
    plan = rows()
    for reading in (AS_PRINTED, REPAIRED):
        ensemble, names = ENSEMBLE + reading, ("U-Ones+CT+LSR", *pham2019.MEMBERS.split(",")[1:])
        assert plan[ensemble].of == [name + reading for name in names]
        assert plan[ensemble + TTA].of == [name + TTA for name in plan[ensemble].of]
    draws = np.random.default_rng(0).random((2, 10, 3, 14))
    parts = [Predictions(*[None] * 4, of_network, {}) for of_network in draws]
    combined = plan[ensemble + TTA].combine(*parts)
    np.testing.assert_allclose(combined.mean(axis=0), draws.mean(axis=(0, 1)))
    of_one = plan["nasnetlarge" + REPAIRED + TTA]
    assert (of_one.fit.epochs, of_one.start_from) == (0, "nasnetlarge" + REPAIRED)
    assert of_one.network.backbone == "nasnetlarge"


def test_a_wrong_member_is_named_before_anything_is_trained():
    with pytest.raises(RunError, match="there is no backbone 'nasnet'; give one of"):
        options.check(dataclasses.replace(Config(), members="densenet121,nasnet"))


# Closing the tree: blanks, everything or nothing, and flat rows with the same labels


@pytest.fixture
def pneumonia() -> pd.DataFrame:
    """Pneumonia over Consolidation, an explicit negative or a blank; Lung Opacity is blank."""
    return frame_of({"Consolidation": [0, np.nan, 0], "Pneumonia": [-1, -1, 1]})


def test_an_explicit_negative_stays_negative_above_an_uncertain_child(pneumonia):
    """U-Ones calls the uncertain Pneumonia positive; Consolidation was released as 0."""
    blanks, everything, nothing = (
        rows(close=close)["U-Ones+CT" + REPAIRED] for close in ("blanks", "all", "none")
    )
    # a label is trained where its parent is positive, so it shows what its parent became
    np.testing.assert_array_equal(column(blanks, pneumonia, "Consolidation"), [0, 1, 0])
    np.testing.assert_array_equal(column(blanks, pneumonia, "Pneumonia"), [NO, 1, NO])
    np.testing.assert_array_equal(column(blanks, pneumonia, "Lung Opacity"), [1, 1, 1])
    np.testing.assert_array_equal(column(everything, pneumonia, "Consolidation"), [1, 1, 1])
    np.testing.assert_array_equal(column(everything, pneumonia, "Pneumonia"), [1, 1, 1])
    np.testing.assert_array_equal(column(nothing, pneumonia, "Lung Opacity"), [0, 0, 0])
    np.testing.assert_array_equal(column(nothing, pneumonia, "Pneumonia"), [NO, NO, NO])


def test_controls_are_flat_rows_with_the_labels_of_ct(frame):
    plan = rows()
    for name in BY_CT:
        control = plan[name.replace("+CT", "") + CLOSED]
        flat, ct = plan[name.replace("+CT", "")], plan[name + REPAIRED]
        trained = ~np.isnan(learnt(ct, frame))
        np.testing.assert_array_equal(learnt(control, frame)[trained], learnt(ct, frame)[trained])
        assert describe(control.fit) == describe(flat.fit)
        assert control.readout == flat.readout
        assert control.start_from == ""
    closed = column(plan["U-Zeros" + CLOSED], frame, PARENT)
    np.testing.assert_array_equal(closed, [1, 0, 0, 1])  # U-Zeros has a 0 first
    assert sum(name.endswith(CLOSED) for name in plan) == len(BY_CT) == 5


# On ChestX-ray14: its 14 labels and the five above them, none of them uncertain


def nih_rows(**changes) -> dict:
    config = dataclasses.replace(Config(), **changes)
    return {row.name: row for row in pham2019.rows(config, "chestxray14")}


def test_no_rows_of_other_policies_on_chestxray14():
    plan = nih_rows()
    trained = [row for row in plan.values() if isinstance(row, Row)]
    assert all(list(row.task.labels) == list(labels.CHESTXRAY14_HIERARCHY) for row in trained)
    assert not [name for name in plan if "U-" in name or "LSR" in name or CLOSED in name]
    assert plan[ENSEMBLE + REPAIRED].of[0] == "Ignore+CT" + REPAIRED
    assert [row.name for row in trained if row.centre] == ["Ignore" + CENTRE]
    five = plan["Ignore"].fit.select.keywords["columns"]
    chosen = [labels.CHESTXRAY14_HIERARCHY[column] for column in five]
    assert chosen == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion"]


def test_conditional_training_on_chestxray14_by_hand():
    """Image 0 has a finding below each of the parents, 1 none, 2 a mass."""
    frame = nih_frame([("Mass", "Edema", "Effusion"), (), ("Mass",)], ["train"] * 3)
    names, plan = labels.CHESTXRAY14_HIERARCHY, nih_rows()

    def of(row: str, label: str) -> np.ndarray:
        return learnt(plan[row], frame)[:, names.index(label)]

    step_1 = "Ignore+CT" + AS_PRINTED + STEP_1
    np.testing.assert_array_equal(of(step_1, "Edema"), [1, NO, NO])
    assert np.isnan(of(step_1, "Opacity")).all()
    repaired = "Ignore+CT" + REPAIRED
    np.testing.assert_array_equal(of(repaired, "Abnormal"), [1, 0, 1])  # the root, everywhere
    np.testing.assert_array_equal(of(repaired, "Nodule"), [0, NO, 0])
    np.testing.assert_array_equal(of(repaired, "Edema"), [1, NO, NO])
    np.testing.assert_array_equal(of("Ignore", "Nodule"), [0, 0, 0])
    logits = np.zeros((1, len(names)))
    probabilities_of = plan[repaired].readout.probabilities(logits)[0]
    assert probabilities_of[names.index("Edema")] == pytest.approx(0.5**4)


def test_splits_of_chestxray14_are_never_comparable():
    frame = nih_frame([()] * 40, ["train_val"] * 32 + ["test"] * 8)
    official, reason = pham2019.split(frame, Config())
    assert official["split"].value_counts().to_dict() == {"train": 28, "val": 4, "test": 8}
    assert reason == "chestxray14 (official split), not CheXpert"
    _, reason = pham2019.split(frame, Config(split="chexnet"))
    assert reason == "chestxray14 (chexnet split), not CheXpert"


def test_all_networks_normalise_as_the_text_says_or_as_their_weights_ask():
    for setting in ("imagenet", "network"):
        plan = rows(normalise=setting)
        trained = [row for row in plan.values() if isinstance(row, Row)]
        assert {row.network.build.keywords["normalise"] for row in trained} == {setting}
    assert Config().normalise == "imagenet"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pham2019")
    return drawing.write("chexpert", folder, 150, 48, seed=3, prevalence_floor=0.1, progress=False)


def run_script(drawn: Path, folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "reproduce.pham2019", "--data-dir", str(drawn)]
    command += ["--preset", "demo", "--size", "32", "--resize", "36", "--epochs", "1"]
    command += ["--draws", "2", "--resamples", "20", *words]
    command += ["--backbone", "tiny_plain", "--members", "tiny_plain,tiny_residual"]
    command += ["--cache-dir", str(folder / "cache"), "--results-dir", str(folder / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script(drawn, tmp_path):
    """Members, ensemble, TTA, centre crop and readers; run again, nothing is trained."""
    wanted = ["--rows", ENSEMBLE + AS_PRINTED + TTA, CENTRE_CROP]
    out = run_script(drawn, tmp_path, *wanted)
    folder = tmp_path / "results" / "pham2019" / "chexpert-phantoms"
    assert "drawn phantoms, not comparable with the published values" in out
    assert "tiny_residual takes the place of densenet169" in " ".join(out.split())
    assert (tmp_path / "cache" / "templates").is_dir()
    for figure in ("figure-4.svg", "figure-4-public.svg", "figure-5.svg"):
        assert "drawn phantoms" in (folder / figure).read_text()
    table = pd.read_csv(folder / "table.csv")
    ours = table[table["row"] == "Ours (test)"].set_index("metric")
    assert 0 <= ours["ours"]["radiologists below the curve"] <= 3
    assert table[table["verdict"] == "quoted"]["row"].nunique() == 9
    assert STEP_1 not in " ".join(table["row"])
    assert "radiologists below the curve" in (folder / "public.md").read_text()
    assert "ensemble (as printed) (TTA), seed 0" in (folder / "studies.md").read_text()

    def of_run(row: str, name: str) -> Path:
        (path,) = (folder / row).glob(f"seed-0-*/{name}")
        return path

    def weights(row: str) -> dict[str, np.ndarray]:
        arrays = {}
        with h5py.File(of_run(row, "best.weights.h5")) as file:
            file.visititems(
                lambda name, item: arrays.update({name: item[()]} if hasattr(item, "dtype") else {})
            )
        return {name: value for name, value in arrays.items() if name.startswith("layers")}

    before, after = weights("tiny_residual-as-printed-step-1"), weights("tiny_residual-as-printed")
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed
    assert all(name.startswith("layers/dense") for name in changed)

    parts = [
        predictions.load(of_run(f"{row}-as-printed-TTA", "predictions.npz"))
        for row in ("tiny_residual", "U-Ones+CT+LSR", "ensemble")
    ]
    assert [len(part.probabilities) for part in parts] == [2, 2, 2]
    np.testing.assert_allclose(parts[2].mean, (parts[0].mean + parts[1].mean) / 2, atol=1e-6)
    assert not np.array_equal(*parts[0].probabilities)  # the draws differ

    record = json.loads(of_run("U-Ones-centre-crop", "config.json").read_text())
    assert record["settings"]["data"]["template"] is None
    of_run("tiny_residual-as-printed-TTA", "predictions.npz").unlink()  # as if killed before it
    again = run_script(drawn, tmp_path, *wanted)
    assert "7 of 8 runs are finished and stay" in again
    assert "epoch 1/1" not in again
    redone = predictions.load(of_run("tiny_residual-as-printed-TTA", "predictions.npz"))
    np.testing.assert_array_equal(redone.probabilities, parts[0].probabilities)


def test_the_script_on_chestxray14(tmp_path):
    command = [sys.executable, "-m", "reproduce.pham2019", "--dataset", "chestxray14"]
    command += ["--phantoms", "200", "--size", "32", "--epochs", "1", "--draws", "2"]
    command += ["--resamples", "20", "--backbone", "tiny_plain", "--members", "tiny_plain"]
    command += ["--rows", ENSEMBLE + REPAIRED + TTA, ENSEMBLE + REPAIRED, "Ignore"]
    command += ["--cache-dir", str(tmp_path / "cache"), "--results-dir", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "pham2019" / "chestxray14-phantoms"
    text = " ".join((folder / "table.md").read_text().split())
    assert (
        "no label is uncertain in ChestX-ray14, so the rows of other policies are left out" in text
    )
    assert "ChestX-ray14, official split" in text
    table = pd.read_csv(folder / "table.csv").set_index(["row", "column"])
    assert not np.isnan(table["ours"]["Ignore", "Pleural Effusion"])  # its Effusion
    judged = pd.read_csv(folder / "claims-ours.csv", keep_default_na=False)
    not_run = judged[judged["ours"] == "not run"]
    assert (not_run["our_note"] != "").all()
    assert {"ct-raises-mean", "ensemble-helps"} <= {*judged[judged["ours"] != "not run"]["claim"]}
    assert (folder / "figure-5.svg").exists()
    above = pd.read_csv(folder / "consistency.csv").set_index("row")["child > parent / 100"]
    assert above["ensemble (repaired)"] == 0  # a product along a path
    assert above["Ignore"] > 0
