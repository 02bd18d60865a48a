"""ge2018: its rows and readings, and the script run whole on phantoms."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import chestxray14, labels
from evaluation import predictions, probabilities, published
from evaluation.predictions import Predictions
from reproduce import RunError, ge2018
from reproduce.engine.options import Options
from reproduce.engine.rows import Row, describe, parents
from reproduce.tables import ge2018 as tables
from tests.conftest import REPOSITORY


def rows(**changes):
    config = replace(ge2018.Config(), **changes)
    return {row.name: row for row in ge2018.rows(config, "chestxray14")}


def weights(row: Row) -> tuple[float, float]:
    """Return α and β of a row's joint loss."""
    loss = row.loss(np.zeros((1, 14), np.float32))
    return loss.alpha, loss.beta


def test_every_published_row_of_theirs_has_one_of_ours():
    printed = published.load("ge2018")
    theirs = printed.loc[~printed["note"].str.startswith("quoted"), "row"].unique()
    ours = rows()
    assert {tables.PRINTED_NAMES.get(name, name) for name in theirs} <= set(ours)
    order = list(ours)
    for row in ours.values():
        assert all(order.index(name) < order.index(row.name) for name in parents(row))


def test_f_msml_is_read_at_fce_alone_and_with_its_own_ce():
    outputs = np.random.default_rng(1).normal(size=(5, 42))
    ce, _, fce = np.split(probabilities.sigmoid(outputs), 3, axis=1)
    ours = rows()
    np.testing.assert_allclose(ours["R18-F-MSML"].readout.probabilities(outputs), fce)
    own = ours["R18-F-MSML + own CE"]
    assert (own.fit.epochs, own.start_from) == (0, "R18-F-MSML")
    np.testing.assert_allclose(own.readout.probabilities(outputs), (ce + fce) / 2)
    np.testing.assert_allclose(ours["R18-F-MSML Local stage 1"].readout.probabilities(outputs), ce)


def test_the_own_ce_head_is_a_row_without_training():
    """Each head stands alone in the table: logits 0, 1, 2 of CE, MSML, FCE of one label."""
    ours = rows()
    outputs = np.repeat([[0.0, 1.0, 2.0]], 14, axis=1)
    for name in ("R18-F-MSML", "D121-F-MSML"):
        head = ours[f"{name} CE head"]
        assert (head.fit.epochs, head.start_from) == (0, name)
        assert describe(head.network) == describe(ours[name].network)
        np.testing.assert_allclose(head.readout.probabilities(outputs), 0.5)


def options(**changes) -> Options:
    return Options(**changes)


def test_each_split_seed_is_a_config_of_its_own():
    several = replace(ge2018.Config(), split_seeds="0,3")
    assert [each.split_seeds for each in ge2018.of_each_split(several, options())] == ["0", "3"]
    assert ge2018.of_each_split(ge2018.Config(), options(on="ray")) == [ge2018.Config()]


def test_split_seeds_draw_different_patients(shared_data):
    released = chestxray14.read(shared_data / "chestxray14-64px", allow_missing=True)
    sets = [
        ge2018.split(released, replace(ge2018.Config(), split_seeds=seed))[0]["split"]
        for seed in ("0", "0", "1")
    ]
    assert sets[0].equals(sets[1])
    assert not sets[0].equals(sets[2])


@pytest.mark.parametrize(
    ("config", "how", "message"),
    [
        ({"split": "official", "split_seeds": "1"}, {}, "draws random splits"),
        ({"split_seeds": "0,1"}, {"split_file": Path("split.csv.gz")}, "draws random splits"),
        ({"split_seeds": "0,1"}, {"on": "ray"}, "one of the --split-seeds at a time"),
    ],
)
def test_split_seeds_that_would_have_no_effect_are_refused(config, how, message):
    with pytest.raises(RunError, match=message):
        ge2018.of_each_split(replace(ge2018.Config(), **config), options(**how))


def test_split_seeds_that_are_no_numbers_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ge2018", "--split-seeds", "0,x"])
    with pytest.raises(RunError, match="--split-seeds 0,x: give whole numbers"):
        ge2018.main()


def test_strategies_train_first_the_streams_then_what_pools_them():
    ours = rows()
    stage_1 = ours["R18-F-MSML Local stage 1"]
    assert weights(stage_1) == (1, 0)
    assert weights(ours["R18-F-MSML"]) == (0.2, 0.6)
    for name in ("R18-F-MSML Local alone", "R18-F-MSML Local-Fixed alone"):
        assert ours[name].start_from == stage_1.name
        assert weights(ours[name]) == (0, 1)


def test_the_rate_falls_to_a_tenth_every_third_epoch():
    rate = rows()["R18"].fit.learning_rate
    np.testing.assert_allclose(
        [rate(e, []) for e in (0, 2, 3, 5, 6)], np.array([1, 1, 0.1, 0.1, 0.01]) * 1e-4
    )


def test_fusions_are_means_of_probabilities_and_the_control_is_another_seed():
    ours = rows()
    parts = [Predictions(*[None] * 4, np.full((1, 2, 14), value), {}) for value in (0.2, 0.6)]
    np.testing.assert_allclose(ours["R18 + R18 again"].combine(*parts).mean(axis=0), 0.4)
    assert ours["R18 again"].fit.reseed != ours["R18"].fit.reseed


@pytest.mark.parametrize(
    ("setting", "changed", "same"),
    [
        ({"alpha": 0.3}, {"R18-F-MSML", "VGG-F-MSML"}, {"R18", "R18-BL", "D121"}),
        ({"msml": "as_printed"}, {"R18-F-MSML"}, {"R18", "R18-BL"}),
        ({"projection": 64}, {"R18-BL", "R18-F-MSML"}, {"R18", "D121-BL"}),
        ({"sketch": 512}, {"R18-BL", "D121-BL"}, {"R18", "D121"}),
        ({"densenet": "densenet169"}, {"D121", "D121-BL"}, {"R18", "R18-BL", "VGG-F-MSML"}),
    ],
)
def test_settings_touch_only_the_rows_that_use_them(setting, changed, same):
    before, after = rows(), rows(**setting)
    other = {name for name, row in before.items() if describe(row) != describe(after[name])}
    assert changed <= other
    assert not same & other


def test_every_network_has_the_printed_outer_product_and_as_many_weights():
    """Section 2.2: p has d² entries. The 1x1 convolution is 512 wide on 512², 128 on 1024²."""
    assert ge2018.Config().reduce == ge2018.Config().sketch == 0
    sizes = {}
    for name in ("R18-BL", "D121-BL"):
        given = built_with(rows()[name])
        assert given["reduce"] == given["sketch"] == 0
        channels = {"resnet18": 512, "densenet121": 1024}[given["backbone"]]
        sizes[name] = channels**2 * given["projection"]
    assert sizes == {"R18-BL": 134_217_728, "D121-BL": 134_217_728}


def built_with(row: Row) -> dict:
    """The arguments of models.bilinear.build for a row."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ge2018.models.bilinear, "build", given.update)
        network = row.network
        network.build(backbone=network.backbone, labels=14, size=network.size)
    return given


def test_two_streams_get_one_reduction_and_one_normalisation():
    given = built_with(rows(reduce=256, normalise="imagenet")["D121-F-MSML"])
    assert (given["streams"], given["reduce"], given["normalise"]) == (2, 256, "imagenet")
    assert ge2018.Config().normalise == "network"
    trained = [row for row in rows().values() if isinstance(row, Row)]
    assert {row.network.build.keywords["normalise"] for row in trained} == {"network"}


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ("random", ""),
        ("chexnet", "another 70/10/20 split by patient, CheXNet's"),
        ("official", "another split, the official lists"),
    ],
)
def test_every_split_but_the_random_one_is_named_in_the_verdict(split, reason, shared_data):
    released = chestxray14.read(shared_data / "chestxray14-64px", allow_missing=True)
    made, why = ge2018.split(released, replace(ge2018.Config(), split=split))
    assert why == reason
    assert set(made["split"]) == {"train", "val", "test"}
    assert made.groupby("patient_id")["split"].nunique().max() == 1


def test_the_script_runs_on_phantoms(tmp_path):
    wanted = "R18 + R18-F-MSML,R18-F-MSML + own CE"
    command = [
        *(sys.executable, "-m", "reproduce.ge2018", "--rows", wanted, "--phantoms", "200"),
        *("--epochs", "1", "--size", "32", "--resize", "36", "--resamples", "20"),
        *("--device", "cpu", "--cache-dir", tmp_path / "c", "--results-dir", tmp_path / "r"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "drawn phantoms, not comparable" in done.stdout
    assert "Share of normal images" in done.stdout
    folder = tmp_path / "r" / "ge2018" / "chestxray14-phantoms"
    table = pd.read_csv(folder / "table.csv").dropna(subset="ours")
    global_, fused = (
        table.query("row == @row and column == 'mean'")["ours"].item()
        for row in ("R18-F-MSML Global", "R18 + R18-F-MSML")
    )
    assert global_ == fused
    parts = [
        predictions.load(next((folder / row).glob("seed-0-*/predictions.npz")))
        for row in ("R18", "R18-F-MSML")
    ]
    both = predictions.load(next(folder.glob("R18-+-R18-F-MSML/seed-0-*/predictions.npz")))
    np.testing.assert_allclose(both.mean, (parts[0].mean + parts[1].mean) / 2, atol=1e-6)
    shares = pd.read_csv(folder / "normal-share.csv", index_col="row")
    assert shares["counted"].between(0, 1).all()


def test_results_over_two_random_splits_are_means_over_their_test_sets(tmp_path):
    command = [
        *(sys.executable, "-m", "reproduce.ge2018", "--rows", "R18", "--phantoms", "200"),
        *("--epochs", "1", "--size", "32", "--resize", "36", "--resamples", "20"),
        *("--split-seeds", "0,1", "--device", "cpu"),
        *("--cache-dir", tmp_path / "c", "--results-dir", tmp_path / "r"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "r" / "ge2018" / "chestxray14-phantoms"
    values = pd.read_csv(folder / "values.csv").query("metric == 'AUC'").set_index("group")
    assert "mean of 2 splits" in values["note"]["mean"]
    runs = sorted((folder / "R18").glob("seed-0-*"))
    of_runs = [pd.read_csv(run / "metrics.csv").query("metric == 'AUC'") for run in runs]
    each = pd.concat([table.set_index("group")["value"] for table in of_runs], axis=1)
    assert each.shape[1] == 2
    np.testing.assert_allclose(values["value"][each.index], each.mean(axis=1, skipna=False))
    assert each.loc["mean"].nunique() == 2
    tests = [predictions.load(run / "predictions.npz").patients for run in runs]
    assert {*tests[0]} != {*tests[1]}
    # W-AUC has the same weights on both: n_c / N of all 200 phantoms
    images = [pd.read_csv(path, dtype=str) for path in folder.glob("split*.csv.gz")]
    assert [len(split) for split in images] == [200, 200]
    auc = each.loc[list(labels.CHESTXRAY14)]
    ratio = each.loc["W normalised"] / each.loc["W"]
    if not auc.isna().any(axis=None):
        assert ratio.nunique() == 1


@pytest.mark.parametrize("flag", ["--split", "--msml", "--over-labels"])
def test_settings_that_are_none_are_refused(monkeypatch, capsys, flag):
    monkeypatch.setattr("sys.argv", ["ge2018", flag, "other"])
    with pytest.raises(SystemExit) as end:
        ge2018.main()
    assert end.value.code == 2
    assert f"{flag}: invalid choice: 'other'" in capsys.readouterr().err
