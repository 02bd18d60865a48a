"""doerrich2025: the protocol, the sizes that are there, verdicts with a printed deviation."""

import dataclasses
import sys

import numpy as np
import pytest

from evaluation import published
from reproduce import RunError, doerrich2025
from reproduce.engine import schedules
from tests import mnist


def rows(**settings) -> dict:
    config = dataclasses.replace(doerrich2025.Config(), **settings)
    return {row.name: row for row in doerrich2025.rows(config, "chestmnist")}


def test_the_rows_are_those_of_the_printed_table():
    table, printed = rows(), published.load("doerrich2025")
    run = {*printed["row"]} & {*table}
    assert len(table) == len(run) == 26
    assert all(
        "enlarged" in name or name.split()[0] in ("auto-sklearn", "AutoKeras", "Google")
        for name in {*printed["row"]} - run
    )


def test_the_protocol():
    table = rows()
    trained, probed = table["DenseNet-121 64 px"], table["DenseNet-121 probed 64 px"]
    assert dataclasses.replace(probed.fit, head_only=False, features_once=False) == trained.fit
    assert (probed.fit.head_only, probed.fit.features_once) == (True, True)
    assert trained.network == probed.network
    assert (trained.network.size, trained.network.build.keywords) == (64, {"frame": 224})
    rate = trained.fit.learning_rate
    np.testing.assert_allclose([rate(0, []), rate(50, []), rate(100, [])], [1e-4, 5e-5, 0])
    stale = [{"val_loss": loss} for loss in (1, 0.5, 0.6, 0.5, 0.7, 0.6, 0.9)]
    assert [trained.fit.stop(stale[:epochs]) for epochs in (6, 7)] == [False, True]


def test_yangs_learning_rate_falls_after_50_and_75_epochs():
    rate = rows()["ResNet-50 28 px (Yang)"].fit.learning_rate
    assert rate == schedules.Milestones(1e-3, 0.1, (50, 75))
    np.testing.assert_allclose(
        [rate(epoch, []) for epoch in (0, 49, 50, 74, 75, 99)],
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5],
    )


@pytest.mark.parametrize("sizes", ["", "27", "28,28", "28;64", "28,x"])
def test_other_sizes_are_refused(sizes):
    with pytest.raises(RunError, match="give some of 28,64,128,224"):
        rows(sizes=sizes)


def test_the_verdict_allows_for_the_printed_deviation():
    """Three seeds with a deviation of .01 leave ±.0248; .80 ± .0248 meets [.82, .84]."""
    margin = published.T_THREE * 0.01 / 3**0.5
    assert margin == pytest.approx(0.02484, abs=1e-5)
    assert published.verdict(0.80, 0.82, 0.84) == "below"
    assert published.verdict(0.80, 0.82, 0.84, margin=margin) == "within"
    assert published.verdict(0.80, 0.83, 0.84, margin=margin) == "below"
    assert published.verdict(0.80, 0.76, 0.77, margin=margin) == "above"
    printed = published.load("doerrich2025").set_index("row")
    assert printed["margin"]["DenseNet-121 28 px"] == pytest.approx(4.303 * 0.0009 / 3**0.5)
    assert printed["margin"]["ResNet-18 28 px (Yang)"] == 0


def test_the_script_on_real_radiographs(shared_data, tmp_path, monkeypatch, capsys):
    """Rows run at the size that is there; the others are named."""
    source = shared_data / "chestxray14-patients-1-3922-64px" / "images"
    listed = mnist.listed({path.name for path in sorted(source.iterdir())[:1500]})
    folder = tmp_path / "chestmnist"
    folder.mkdir()
    mnist.write(folder / "chestmnist.npz", listed, mnist.from_folder(source, 28))
    mnist.write_index(folder / "chestmnist.csv", listed)
    command = ["doerrich2025", "--data-dir", folder, "--preset", "demo", "--sizes", "28,64"]
    command += ["--epochs", 2, "--resamples", 50, "--results-dir", tmp_path / "results"]
    command += ["--cache-dir", tmp_path / "cache"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    doerrich2025.main()
    printed = capsys.readouterr().out
    assert "has 28 px, not 64: its rows are not run" in printed
    table = (tmp_path / "results" / "doerrich2025" / "chestmnist" / "table.csv").read_text()
    lines = [line for line in table.splitlines() if "DenseNet-121 probed" in line]
    assert "not comparable (subset of 1,500 images)" in lines[0]
    assert all("not run" in line for line in lines[1:])
