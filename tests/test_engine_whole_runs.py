"""Whole runs that somebody can rely on: copied data, failed rows, a second start."""

import functools
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.phantom import drawing
from reproduce import chen2019
from reproduce.engine import schedules, train
from reproduce.report import results_folder
from tests.flags import with_changes

ROWS = ["--rows", "BR-leaf", "HLUP", "HLUP, same budget", "HLCP"]


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Path:
    """A folder with a drawn trial and the results of a few rows on it."""
    at = tmp_path_factory.mktemp("trust")
    drawing.write("plco", at / "data", 120, 48, seed=5, prevalence_floor=0.1, progress=False)
    assert run(at, "data") == 0
    return at


def run(at: Path, data: str, *more: str, results: str = "results", cache: str = "cache") -> int:
    """Run chen2019 on a folder; return its exit code."""
    flags = [
        *("--data-dir", at / data, "--results-dir", at / results, "--cache-dir", at / cache),
        *("--preset", "demo", "--size", "32", "--resize", "36", "--resamples", "10"),
        *("--epochs", "1", "--finetune-epochs", "1", *ROWS),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["chen2019", *map(str, with_changes(flags, more))])
        try:
            chen2019.main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def epochs_trained(at: Path, results: str = "results") -> int:
    return sum(log.read_text().count("  epoch ") for log in (at / results).rglob("log.txt"))


def test_a_copy_with_new_times_and_shuffled_lists_is_the_same_data(trial, capsys):
    before = epochs_trained(trial)
    shutil.copytree(trial / "data", trial / "copy", copy_function=shutil.copy)
    for path in (trial / "copy").rglob("*"):
        os.utime(path, (1e9, 1e9))
    for path in (trial / "copy").glob("*_set_*.csv"):
        pd.read_csv(path, dtype=str).sample(frac=1, random_state=1).to_csv(path, index=False)
    assert run(trial, "copy", cache="another cache") == 0
    assert "4 of 4 runs are finished and stay." in capsys.readouterr().out
    assert epochs_trained(trial) == before


def test_one_row_s_nan_is_not_the_table_s_end(trial, capsys, monkeypatch):
    whole = chen2019.rows

    @functools.wraps(whole)
    def rows(config, dataset):
        return [exploding(row) if row.name == "HLUP" else row for row in whole(config, dataset)]

    def exploding(row):
        return chen2019.replace(
            row, fit=chen2019.replace(row.fit, learning_rate=schedules.Constant(1e30))
        )

    monkeypatch.setattr(chen2019, "rows", rows)
    assert run(trial, "data", "--epochs", "2", results="failing") == 1
    folder = trial / "failing" / "chen2019" / "plco-phantoms"
    table = pd.read_csv(folder / "table.csv").set_index("row")["verdict"]
    assert table["HLUP"].str.fullmatch("failed: NaN in epoch [12]").all()
    values = pd.read_csv(folder / "values.csv").set_index("row")
    assert set(values.loc["HLUP, same budget", "note"]) == {"failed: needs HLUP"}
    assert np.isfinite(values.loc["HLCP", "value"]).any()
    assert "failed" in (folder / "claims.md").read_text()
    listing = next(folder.glob("HLUP/seed-0-*/bad-batch.txt")).read_text().split()
    assert listing
    assert all(name.startswith("images/") for name in listing)
    capsys.readouterr()

    trained = epochs_trained(trial, "failing")
    assert run(trial, "data", "--epochs", "2", results="failing") == 1
    assert "--retry-failed" in capsys.readouterr().err
    assert epochs_trained(trial, "failing") == trained
    monkeypatch.undo()
    assert run(trial, "data", "--epochs", "2", "--retry-failed", results="failing") == 0
    assert epochs_trained(trial, "failing") == trained + 2 + 1  # HLUP's two and its twin's one


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: 9 GB")])
def test_a_row_without_memory_is_not_the_table_s_end(trial, monkeypatch, error):
    whole = train.train_row

    def train_row(run, *arguments):
        if run.row.name == "HLUP":
            raise error
        return whole(run, *arguments)

    monkeypatch.setattr(train, "train_row", train_row)
    results = f"full-{type(error).__name__}"
    assert run(trial, "data", results=results) == 1
    folder = trial / results / "chen2019" / "plco-phantoms"
    table = pd.read_csv(folder / "table.csv").set_index("row")["verdict"]
    assert set(table["HLUP"]) == {"failed: out of memory"}
    assert list(folder.glob("HLCP/seed-0-*/predictions.npz"))


def test_lost_predictions_are_made_again_without_training(trial, capsys):
    (folder,) = trial.glob("results/chen2019/plco-phantoms/HLCP/seed-0-*")
    expected, before = (folder / "predictions.npz").read_bytes(), epochs_trained(trial)
    (folder / "predictions.npz").write_bytes(expected[:-40])
    assert run(trial, "data") == 0
    assert "set aside" in capsys.readouterr().out
    assert (folder / "predictions.npz").read_bytes() == expected
    assert epochs_trained(trial) == before


def test_a_split_is_kept_and_runs_again(trial):
    folder = trial / "results" / "chen2019" / "plco-phantoms"
    split = folder / "split.csv.gz"
    before = epochs_trained(trial)
    assert run(trial, "data", "--split-file", str(split)) == 0
    assert epochs_trained(trial) == before
    other = pd.read_csv(split)
    swapped = other["split"].replace({"test": "val", "val": "test"})
    other.assign(split=swapped).to_csv(trial / "other.csv", index=False)
    assert run(trial, "data", "--split-file", str(trial / "other.csv"), results="other") == 0
    made = trial / "other" / "chen2019" / "plco-phantoms" / "split.csv.gz"
    assert pd.read_csv(made)["split"].value_counts().to_dict() == swapped.value_counts().to_dict()


def test_the_report_names_a_table_that_was_edited(trial):
    assert run(trial, "data") == 0
    results = trial / "results"
    (one,) = results_folder.result_sets(results)
    assert not one.problems
    table = results / "chen2019" / "plco-phantoms" / "values.csv"
    before = table.read_text()
    table.write_text(before.replace("0.", "0.9", 1))
    (one,) = results_folder.result_sets(results)
    assert "values.csv is missing or was changed after it was written" in one.problems[0]
    table.write_text(before)
