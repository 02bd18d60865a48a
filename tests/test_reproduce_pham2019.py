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
from reproduce.pham2019 import BEST, CENTRE_CROP, CLOSED, ENSEMBLE, STEP_1, TABLE_1, TTA, Config

ROOT = Path(__file__).parents[1]
NAMES = labels.CHEXPERT
NO = np.nan


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
    assert rows().keys() >= {*TABLE_1, ENSEMBLE, ENSEMBLE + TTA, BEST + TTA, CENTRE_CROP}


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
    known = {name: not np.isnan(column(plan[name], frame, "Pneumonia")[1]) for name in TABLE_1}
    assert known["U-Ones+CT"]
    assert known["U-Ones+CT+LSR"]
    assert not known["U-Zeros+CT"]
    assert not known["U-Zeros+CT+LSR"]
    assert not known["Ignore+CT"]


PARENT = "Enlarged Cardiomediastinum"  # blank, then uncertain, where Cardiomegaly is positive


def test_a_positive_child_fills_its_blank_parent_under_ct_alone(frame):
    plan = rows()
    np.testing.assert_array_equal(column(plan["U-Zeros"], frame, PARENT), [0, 0, 0, 1])
    np.testing.assert_array_equal(column(plan["U-Zeros+CT"], frame, PARENT), [1, 0, 0, 1])
    np.testing.assert_array_equal(column(plan["U-Zeros+CT"], frame, "Cardiomegaly"), [1, NO, NO, 0])
    np.testing.assert_array_equal(column(plan["U-Ones+CT"], frame, PARENT), [1, 1, 0, 1])
    np.testing.assert_array_equal(column(plan["Ignore+CT"], frame, PARENT), [1, NO, 0, 1])
    for name in TABLE_1:  # step 2 learns the last layer again, from the same
        if name + STEP_1 in plan:
            np.testing.assert_array_equal(
                learnt(plan[name], frame), learnt(plan[name + STEP_1], frame)
            )


def test_step_2_is_the_head_of_step_1():
    plan = rows()
    for name, (_, by_ct) in TABLE_1.items():
        assert plan[name].fit.head_only == by_ct
        assert plan[name].start_from == (name + STEP_1) * by_ct
    assert plan["Ignore+CT" + STEP_1].start_from == ""
    warm = rows(warm_start=True)
    assert warm["U-Zeros+CT+LSR" + STEP_1].start_from == "U-Zeros+LSR"
    assert warm["xception" + STEP_1].start_from == ""  # it has no flat network


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


def test_literal_variants_change_their_targets_alone(frame):
    usual = rows()
    plain = rows(masked=False)
    assert not np.isnan(learnt(plain["U-Ones+CT"], frame)).any()
    np.testing.assert_array_equal(
        learnt(plain["U-Ones+CT" + STEP_1], frame), learnt(usual["U-Ones+CT" + STEP_1], frame)
    )
    literal = rows(own_parent=False)
    taught = ~np.isnan(learnt(literal["U-Zeros+CT" + STEP_1], frame)).all(axis=1)
    # all three parents are positive in image 0, where Cardiomegaly fills the blank one, and in 3
    np.testing.assert_array_equal(taught, [True, False, False, True])
    np.testing.assert_array_equal(
        learnt(literal["U-Zeros+CT"], frame), learnt(usual["U-Zeros+CT"], frame)
    )
    assert CENTRE_CROP not in rows(template=False)
    assert [name for name, row in usual.items() if isinstance(row, Row) and row.centre] == [
        CENTRE_CROP
    ]


@pytest.mark.parametrize(
    ("setting", "changed", "same"),
    [
        ({"own_parent": False}, {BEST + STEP_1}, {BEST, "U-Ones+LSR", "U-Ones" + CLOSED}),
        ({"masked": False}, {BEST}, {BEST + STEP_1, "U-Ones+LSR"}),
        ({"product": False}, {BEST}, {BEST + STEP_1, "U-Ones+LSR"}),
        ({"warm_start": True}, {BEST + STEP_1}, {BEST, "U-Ones+LSR"}),
        ({"close": "all"}, {BEST, BEST + STEP_1, "U-Ones" + CLOSED}, {"U-Ones+LSR"}),
        ({"draws": 3}, {BEST + TTA}, {BEST, "U-Ones"}),
    ],
)
def test_flags_change_only_the_rows_that_they_are_about(setting, changed, same):
    before, after = rows(), rows(**setting)
    other = {name for name, row in before.items() if describe(row) != describe(after[name])}
    assert changed <= other
    assert not same & other


def test_the_ensemble_averages_final_probabilities():
    plan = rows()
    assert plan[ENSEMBLE].of == [BEST, *pham2019.MEMBERS.split(",")[1:]]
    assert plan[ENSEMBLE + TTA].of == [name + TTA for name in plan[ENSEMBLE].of]
    draws = np.random.default_rng(0).random((2, 10, 3, 14))
    parts = [Predictions(*[None] * 4, of_network, {}) for of_network in draws]
    combined = plan[ENSEMBLE + TTA].combine(*parts)
    np.testing.assert_allclose(combined.mean(axis=0), draws.mean(axis=(0, 1)))
    of_one = plan["nasnetlarge" + TTA]
    assert (of_one.fit.epochs, of_one.start_from) == (0, "nasnetlarge")
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
        rows(close=close)["U-Ones+CT"] for close in ("blanks", "all", "none")
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
    conditional = [name for name, (_, by_ct) in TABLE_1.items() if by_ct]
    for name in conditional:
        control = plan[name.replace("+CT", "") + CLOSED]
        flat, ct = plan[name.replace("+CT", "")], plan[name]
        trained = ~np.isnan(learnt(ct, frame))
        np.testing.assert_array_equal(learnt(control, frame)[trained], learnt(ct, frame)[trained])
        assert describe(control.fit) == describe(flat.fit)
        assert control.readout == flat.readout
        assert control.start_from == ""
    closed = column(plan["U-Zeros" + CLOSED], frame, PARENT)
    np.testing.assert_array_equal(closed, [1, 0, 0, 1])  # U-Zeros has a 0 first
    assert sum(name.endswith(CLOSED) for name in plan) == len(conditional) == 5


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
    wanted = ["--rows", ENSEMBLE + TTA, CENTRE_CROP]
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
    assert "ensemble (TTA), seed 0" in (folder / "studies.md").read_text()

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

    before, after = weights("tiny_residual-step-1"), weights("tiny_residual")
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed
    assert all(name.startswith("layers/dense") for name in changed)

    parts = [
        predictions.load(of_run(row, "predictions.npz"))
        for row in ("tiny_residual-TTA", "U-Ones+CT+LSR-TTA", "ensemble-TTA")
    ]
    assert [len(part.probabilities) for part in parts] == [2, 2, 2]
    np.testing.assert_allclose(parts[2].mean, (parts[0].mean + parts[1].mean) / 2, atol=1e-6)
    assert not np.array_equal(*parts[0].probabilities)  # the draws differ

    record = json.loads(of_run("U-Ones-centre-crop", "config.json").read_text())
    assert record["settings"]["data"]["template"] is None
    of_run("tiny_residual-TTA", "predictions.npz").unlink()  # as if killed before it
    again = run_script(drawn, tmp_path, *wanted)
    assert "7 of 8 runs are finished and stay" in again
    assert "epoch 1/1" not in again
    redone = predictions.load(of_run("tiny_residual-TTA", "predictions.npz"))
    np.testing.assert_array_equal(redone.probabilities, parts[0].probabilities)
