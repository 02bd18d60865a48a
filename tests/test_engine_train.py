"""The table's loop without a network: which rows are due, what is trained again or combined."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import safefiles
from data import splits
from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions
from reproduce import __version__
from reproduce.engine import runs, schedules, train
from reproduce.engine.options import Options
from reproduce.engine.rows import (
    PHANTOMS,
    Combined,
    Data,
    Fit,
    Network,
    Row,
    Run,
    Targets,
    Task,
    bce,
)
from safefiles import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 9


def alternating(frame: pd.DataFrame) -> Targets:
    truth = (np.arange(len(frame)) % 2).astype(np.float32)[:, None]
    return Targets(truth, truth)


def make_row(name: str, rate: float = 1e-4, epochs: int = 1, backbone="tiny", **changes) -> Row:
    fit = Fit(epochs, schedules.Constant(rate), 16)
    return Row(name, Task(("x",), alternating), bce, fit, Network(backbone, 32, "none"), **changes)


@pytest.fixture
def data() -> Data:
    frame = pd.DataFrame({"image_path": ["a", "b", "c", "d"], "patient_id": ["1", "2", "3", "4"]})
    return split_as(Data(frame, None, {"dataset": "plco"}), "train", "val", "test", "test")


def split_as(data: Data, *sets: str, labels: str = "abc") -> Data:
    """Return the data with its images in these sets, and with labels of this hash."""
    frame = data.frame.assign(split=list(sets))
    identity = {"labels": labels, "split": splits.digest(frame), "phantom": False}
    facts = data.facts | {"identity": identity}
    return dataclasses.replace(data, frame=frame, facts=facts, _targets={})


def options_for(results: Path, **changes: Any) -> Options:
    return Options(dataset="plco", results_dir=results, cache_dir=results / "cache", **changes)


def finish(run: Run, probability: float) -> None:
    """Write the predictions of a run that has been trained to its end."""
    of_the_row = Predictions(
        ids=np.array(["c", "d"]),
        patients=np.array(["3", "4"]),
        labels=np.array(["x"]),
        targets=np.array([[0], [1]], np.float32),
        probabilities=np.full((1, 2, 1), probability),
        meta={"row": run.row.name, "seed": run.seed, "run": run.digest, "set": "test"},
    )
    predictions.save(run.folder / "predictions.npz", of_the_row)


@pytest.fixture
def train_rows(tmp_path, data, monkeypatch):
    """Return a function that trains rows by only writing their files.

    `train_rows.trained` lists the rows trained; rows named in `train_rows.failing` fail.
    """
    trained, failing = [], []

    def write_files(run, *_):
        trained.append(run.row.name)
        if run.row.name in failing:
            raise runs.RowFailed("NaN in epoch 1", "Lower --learning-rate.")
        (run.folder / runs.WEIGHTS).write_bytes(b"weights")
        runs.add_to_record(run.folder, weights=safefiles.sha256(run.folder / runs.WEIGHTS))
        finish(run, 0.5)

    monkeypatch.setattr(train, "train_row", write_files)
    monkeypatch.setattr(train.backend, "start", lambda *_, **__: "cpu")
    monkeypatch.setattr(train.backend, "devices_of_row", lambda _: contextlib.nullcontext())

    def of_table(rows, data=data, **options) -> list[Run]:
        trained.clear()
        return train.train_table("p", rows, Config(), data, options_for(tmp_path, **options))

    of_table.trained, of_table.failing = trained, failing
    return of_table


def test_same_settings_same_folder(tmp_path, train_rows, capsys):
    rows = [make_row("HLUP (naive)")]
    (first,) = train_rows(rows)
    assert first.folder.parent == tmp_path / "p" / "plco" / "HLUP-naive"
    assert first.folder.name == f"seed-0-{first.digest[:8]}"
    assert train_rows.trained == ["HLUP (naive)"]
    capsys.readouterr()
    assert train_rows(rows)[0].folder == first.folder
    assert train_rows.trained == []
    assert "changed" not in capsys.readouterr().out


def test_changed_settings_are_a_new_folder_and_the_setting_is_named(train_rows, capsys):
    (first,) = train_rows([make_row("HLCP")])
    (other,) = train_rows([make_row("HLCP", epochs=2)])
    assert other.folder != first.folder
    assert "HLCP: fit.epochs changed from 1 to 2" in capsys.readouterr().out
    assert train_rows([make_row("HLCP", epochs=2)])[0].folder == other.folder
    assert train_rows([make_row("HLCP")])[0].folder == first.folder
    assert train_rows.trained == []


def test_several_devices_per_row_are_other_settings(train_rows, capsys):
    (first,) = train_rows([make_row("HLCP")])
    assert train_rows([make_row("HLCP")], devices_per_row=2)[0].folder != first.folder
    assert "HLCP: devices_per_row changed from None to 2" in capsys.readouterr().out


def test_other_labels_or_another_split_are_other_settings(tmp_path, train_rows, data, capsys):
    (first,) = train_rows([make_row("HLCP")])
    recorded = json.loads((first.folder / "config.json").read_text())
    assert recorded["settings"]["data"]["split"] == splits.digest(data.frame)
    assert recorded["version"] == __version__
    saved = tmp_path / "p" / "plco" / "split.csv.gz"
    assert pd.read_csv(saved)["split"].tolist() == ["train", "val", "test", "test"]
    changed = split_as(data, *data.frame["split"], labels="other")
    assert train_rows([make_row("HLCP")], changed)[0].folder != first.folder
    assert "HLCP: the data labels changed" in capsys.readouterr().out
    other = split_as(data, "val", "train", "test", "test")
    assert train_rows([make_row("HLCP")], other)[0].folder != first.folder


def test_a_row_follows_the_row_that_it_starts_from(train_rows, capsys):
    def pair(parent: float, child: float):
        return [make_row("HLCP", parent), make_row("fine", child, start_from="HLCP")]

    parent, child = train_rows(pair(1e-4, 1e-5))
    same_parent, other_child = train_rows(pair(1e-4, 2e-5))
    assert same_parent.folder == parent.folder
    assert other_child.folder != child.folder
    capsys.readouterr()
    other_parent, other_child = train_rows(pair(2e-4, 1e-5))
    assert other_parent.folder != parent.folder
    assert other_child.folder not in (child.folder, None)
    assert "fine: HLCP changed" in capsys.readouterr().out


def mean_of_both(one, two):
    return (one.probabilities + two.probabilities) / 2


def test_combined_rows_come_from_predictions_alone(tmp_path, train_rows, monkeypatch):
    rows = [make_row("one"), make_row("two")]
    for run, value in zip(train_rows(rows), (0.2, 0.6), strict=True):
        finish(run, value)

    def never(*_):
        raise AssertionError("a combined row needs no network")

    monkeypatch.setattr(train.backend, "start", never)
    trained = train_rows([*rows, Combined("mean", ("one", "two"), mean_of_both)])
    combined = predictions.load(trained[-1].folder / "predictions.npz")
    np.testing.assert_allclose(combined.probabilities, 0.4)
    assert combined.meta["of"] == ["one", "two"]
    recorded = json.loads((trained[-1].folder / "config.json").read_text())
    assert recorded["sessions"][-1]["versions"]["numpy"] == np.__version__


def test_a_row_that_fails_stops_the_rows_that_need_it_and_no_others(train_rows, capsys):
    rows = [
        make_row("HLCP"),
        make_row("fine", start_from="HLCP"),
        make_row("BR"),
        Combined("both", ("fine", "BR")),
    ]
    train_rows.failing.append("HLCP")
    trained = train_rows(rows)
    assert train_rows.trained == ["HLCP", "BR"]
    failed = runs.failed_rows(trained)
    assert failed == {"HLCP": "NaN in epoch 1", "fine": "needs HLCP", "both": "needs fine"}
    with pytest.raises(SystemExit) as end:
        runs.finish(trained)
    assert end.value.code == 1
    assert "3 of 4 runs failed" in capsys.readouterr().err
    train_rows(rows)
    assert train_rows.trained == []  # what failed is not tried again by itself
    assert "HLCP, seed 0 failed before (NaN in epoch 1); --retry-failed" in capsys.readouterr().out
    train_rows.failing.clear()
    trained = train_rows(rows, retry_failed=True)
    assert train_rows.trained == ["HLCP", "fine"]
    assert all(run.finished for run in trained)


@pytest.mark.parametrize("name", ["details.md", "loss.json"])
def test_tables_pages_and_losses_of_runs_are_sealed_too(train_rows, name):
    (run,) = train_rows([make_row("a")])
    folder, page = run.folder.parents[1], run.folder / name
    for path in (folder / "table.md", page):
        path.write_text("AUC .812")
    runs.finish([run])
    assert safefiles.changed_since_sealed(folder) == []
    page.write_text("AUC .912")
    changed = map(Path, safefiles.changed_since_sealed(folder))
    assert [path.name for path in changed] == [name]


def test_predictions_of_another_run_are_set_aside_and_made_again(train_rows, capsys):
    rows = [make_row("a"), make_row("b")]
    first, second = train_rows(rows)
    (second.folder / "predictions.npz").write_bytes((first.folder / "predictions.npz").read_bytes())
    train_rows(rows)
    assert train_rows.trained == ["b"]
    assert (second.folder / "damaged-predictions.npz").exists()
    assert "is of another run" in capsys.readouterr().out


def test_unwritable_results_are_one_sentence(tmp_path, train_rows, data):
    (tmp_path / "p").touch()
    with pytest.raises(UserError, match="cannot be written"):
        train_rows([make_row("a")])


def test_phantoms_never_share_a_folder_with_images(data):
    options = options_for(Path("r"))
    drawn = dataclasses.replace(data, not_comparable=PHANTOMS)
    assert runs.paper_folder("p", options, data) == Path("r/p/plco")
    assert runs.paper_folder("p", options, drawn) == Path("r/p/plco-phantoms")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_broken_predictions_are_one_sentence(tmp_path, content):
    with pytest.raises(EvaluationError, match="no predictions file"):
        predictions.load(tmp_path / "none.npz")
    path = tmp_path / "p.npz"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match="is no predictions file of this suite"):
        predictions.load(path)


def test_a_run_of_an_earlier_version_stays_and_is_trained_again(train_rows, capsys):
    (run,) = train_rows([make_row("HLCP")])
    earlier = run.folder.rename(run.folder.with_name("seed-0"))
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}
    capsys.readouterr()
    (again,) = train_rows([make_row("HLCP")])
    assert train_rows.trained == ["HLCP"]
    assert again.folder == run.folder
    assert {path.name: path.read_bytes() for path in earlier.iterdir()} == before
    assert f"{earlier} was made by an earlier version: it stays" in capsys.readouterr().out


def test_a_damaged_record_stops_no_other_row(train_rows, capsys):
    rows = [make_row("HLCP"), make_row("fine", start_from="HLCP"), make_row("BR")]
    parent, child, _ = train_rows(rows)
    (parent.folder / "config.json").write_text("{")
    (child.folder / "predictions.npz").unlink()
    trained = train_rows([*rows, make_row("new")])
    assert (parent.folder / "damaged-config.json").exists()
    assert "config.json is damaged" in capsys.readouterr().out
    assert [run.row.name for run in trained if run.finished] == ["HLCP", "BR", "new"]
    assert "has no hash in config.json" in (child.folder / "failed.json").read_text()


@pytest.mark.parametrize(
    ("backbones", "threads"),
    [(["tiny", "tiny_plain"], "1"), (["tiny", "densenet121"], None), ([], None)],
)
def test_a_table_of_small_networks_computes_with_one_thread(monkeypatch, backbones, threads):
    monkeypatch.setattr(os, "environ", {})
    rows = [make_row(name, backbone=name) for name in backbones] + [Combined("both", ())]
    train.choose_threads(rows)
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == threads


def test_threads_that_a_user_chose_stay(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    train.choose_threads([make_row("small")])
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "3"
