"""ge2018: its rows and readings, the normal-share check, and the script run whole on phantoms."""

import argparse
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import metrics, predict, published
from reproduce import ge2018, ge2018_results, results, run
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    found = (np.random.default_rng(0).random((40, 14)) < 0.1).astype(np.float32)
    return pd.DataFrame(found, columns=list(labels.CHESTXRAY14))


def rows(frame, **changes):
    options = argparse.Namespace(fast=True)
    return {
        row.name: row for row in ge2018.rows(replace(ge2018.Config(), **changes), options, frame)
    }


def test_every_published_row_of_theirs_has_one_of_ours(frame):
    printed = published.load("ge2018")
    theirs = printed.loc[~printed["note"].str.startswith("quoted"), "row"].unique()
    ours = rows(frame)
    assert {ge2018_results.PRINTED_NAMES.get(name, name) for name in theirs} <= set(ours)
    order = list(ours)
    for row in ours.values():
        parents = (
            row.of if isinstance(row, run.Combined) else [row.start_from] * bool(row.start_from)
        )
        assert all(order.index(name) < order.index(row.name) for name in parents)


def test_f_msml_is_read_at_fce_alone_and_with_its_own_ce(frame):
    outputs = np.random.default_rng(1).normal(size=(5, 42))
    ce, _, fce = np.split(predict.sigmoid(outputs), 3, axis=1)
    ours = rows(frame)
    np.testing.assert_allclose(ours["R18-F-MSML"].probabilities(outputs), fce)
    own = ours["R18-F-MSML + own CE"]
    assert (own.epochs, own.start_from) == (0, "R18-F-MSML")
    np.testing.assert_allclose(own.probabilities(outputs), (ce + fce) / 2)
    np.testing.assert_allclose(ours["R18-F-MSML Local stage 1"].probabilities(outputs), ce)


def test_strategies_train_first_the_streams_then_what_pools_them(frame):
    ours = rows(frame)
    stage_1 = ours["R18-F-MSML Local stage 1"]
    assert (stage_1.loss().alpha, stage_1.loss().beta) == (1, 0)
    assert (ours["R18-F-MSML"].loss().alpha, ours["R18-F-MSML"].loss().beta) == (0.2, 0.6)
    for name in ("R18-F-MSML Local alone", "R18-F-MSML Local-Fixed alone"):
        assert ours[name].start_from == stage_1.name
        assert (ours[name].loss().alpha, ours[name].loss().beta) == (0, 1)


def test_the_rate_falls_to_a_tenth_every_third_epoch(frame):
    rate = rows(frame)["R18"].learning_rate
    np.testing.assert_allclose(
        [rate(e, []) for e in (0, 2, 3, 5, 6)], np.array([1, 1, 0.1, 0.1, 0.01]) * 1e-4
    )


def test_fusions_are_means_of_probabilities_and_the_control_is_another_seed(frame):
    ours = rows(frame)
    parts = [
        predict.Predictions(*[None] * 4, np.full((1, 2, 14), value), {}) for value in (0.2, 0.6)
    ]
    np.testing.assert_allclose(ours["R18 + R18 again"].combine(*parts).mean(axis=0), 0.4)
    assert ours["R18 again"].reseed != ours["R18"].reseed


def test_settings_touch_only_the_rows_that_use_them(frame):
    trained = {name: row for name, row in rows(frame).items() if isinstance(row, run.Row)}
    unused = {name: set(row.unused) for name, row in trained.items()}
    assert {"alpha", "beta", "msml", "projection", "sketch"} <= unused["R18"]
    assert "projection" not in unused["R18-BL"]
    assert {"alpha", "densenet"} <= unused["R18-BL"]
    assert not {"alpha", "projection"} & unused["VGG-F-MSML"]
    assert rows(frame, vgg="vgg19")["VGG-F-MSML"].network == {"backbone": "vgg19"}


def test_the_implied_share_of_normal_images_is_the_counted_one():
    generator = np.random.default_rng(0)
    targets = (generator.random((4000, 14)) < 0.06).astype(np.float32)
    probabilities = predict.sigmoid(generator.normal(targets, 1))
    found = predict.Predictions(None, None, None, targets, probabilities[None], {})
    names = list(labels.CHESTXRAY14)
    values = {}
    for group in metrics.GE:
        view = group.arrays(targets, probabilities, names)
        values[group.name] = float(group.value(metrics.score(*view), names, "AUC"))
    table = pd.DataFrame({"group": values.keys(), "metric": "AUC", "value": values.values()})
    shares = ge2018_results.normal_shares({"R18": results.Scored(table, None, [found])})
    assert shares.loc["R18", "published"] == pytest.approx(0.583, abs=5e-4)  # from Table 1
    normal = (targets == 0).all(axis=1).sum()
    assert shares.loc["R18", "counted"] == pytest.approx(normal / 4000 / 0.94, abs=0.01)
    assert shares.loc["R18", "ours"] == pytest.approx(shares.loc["R18", "counted"], abs=0.02)


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
        predict.load(folder / row / "seed-0" / "predictions.npz") for row in ("R18", "R18-F-MSML")
    ]
    both = predict.load(folder / "R18-+-R18-F-MSML" / "seed-0" / "predictions.npz")
    np.testing.assert_allclose(both.mean, (parts[0].mean + parts[1].mean) / 2, atol=1e-6)
    shares = pd.read_csv(folder / "normal-share.csv", index_col="row")
    assert shares["counted"].between(0, 1).all()


@pytest.mark.parametrize("flag", ["--split", "--msml", "--over-labels"])
def test_settings_that_are_none_are_refused(monkeypatch, capsys, flag):
    monkeypatch.setattr("sys.argv", ["ge2018", flag, "other"])
    with pytest.raises(SystemExit) as end:
        ge2018.main()
    assert end.value.code == 2
    assert f"{flag}: invalid choice: 'other'" in capsys.readouterr().err
