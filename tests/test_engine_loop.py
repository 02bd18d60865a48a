"""The loop over rows without a network: run folders, what is run again, what is combined."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safefiles
from data import DataError, splits
from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions
from reproduce import RunError
from reproduce.engine import loop, plan, state
from reproduce.engine.rows import PHANTOMS, Combined, Data, Fit, Row, Run, Task


@dataclass(frozen=True)
class Config:
    epochs: int = 9
    rate: float = 1e-4
    finetune: int = 2


@pytest.fixture
def data() -> Data:
    frame = pd.DataFrame({"image_path": ["a", "b", "c", "d"], "patient_id": ["1", "2", "3", "4"]})
    return split_as(Data(frame, None, {"dataset": "plco"}), "train", "val", "test", "test")


def split_as(data: Data, *sets: str, labels: str = "abc") -> Data:
    """The data with its images in these sets, and with labels of this hash."""
    frame = data.frame.assign(split=list(sets))
    identity = {"labels": labels, "split": splits.digest(frame)}
    return data._replace(frame=frame, facts=data.facts | {"identity": identity})


def row(name: str, **settings) -> Row:
    truth = np.array([[0], [1], [0], [1]], np.float32)
    task, fit = Task(["x"], truth, truth), Fit(1, lambda epoch, history: 0.0)
    return Row(name, task, lambda: None, fit, **settings)


def options_for(results: Path, **changes) -> argparse.Namespace:
    settings = {
        "results_dir": results,
        "cache_dir": results / "cache",
        "dataset": "plco",
        "rows": None,
        "seeds": (0,),
        "device": "auto",
        "deterministic": False,
        "retry_failed": False,
        "on": "here",
        "only_train": None,
        "devices_per_row": 1,
        "search": (),
    }
    return argparse.Namespace(**settings | changes)


def finish(run: Run, probability: float) -> None:
    """The predictions of a run that has been trained to its end."""
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
def train(tmp_path, data, monkeypatch):
    """loop.train with a training that only writes its files; the names of the rows trained.

    Rows named in `train.failing` fail.
    """
    trained, failing = [], []

    def fake(run, *_, **__):
        trained.append(run.row.name)
        if run.row.name in failing:
            raise state.RowFailed("NaN in epoch 1", "Lower --learning-rate.")
        (run.folder / state.WEIGHTS).write_bytes(b"weights")
        state.add_to_record(run.folder, weights=safefiles.sha256(run.folder / state.WEIGHTS))
        finish(run, 0.5)

    from reproduce.engine import fit

    monkeypatch.setattr(fit, "train", fake)
    monkeypatch.setattr(loop.backend, "start", lambda *_, **__: "cpu")

    def train_rows(rows, data=data, config=Config(), names=None, **options) -> list[Run]:
        trained.clear()
        return loop.train(
            "p",
            lambda config, data: rows,
            data,
            config,
            options_for(tmp_path, rows=names, **options),
        )

    train_rows.trained, train_rows.failing = trained, failing
    return train_rows


def test_same_settings_same_folder(tmp_path, train, capsys):
    rows = [row("HLUP (naive)")]
    first = train(rows)
    assert first[0].folder == tmp_path / "p" / "plco" / "HLUP-naive" / "seed-0"
    assert train.trained == ["HLUP (naive)"]
    capsys.readouterr()
    assert train(rows)[0].folder == first[0].folder
    assert train.trained == []
    assert "changed" not in capsys.readouterr().out


def test_changed_settings_are_a_new_folder_and_the_field_is_named(train, capsys):
    rows = [row("HLCP")]
    train(rows)
    other = train(rows, config=Config(epochs=10))[0]
    assert other.folder.name.startswith("seed-0-")
    assert "HLCP: epochs changed from 9 to 10" in capsys.readouterr().out
    assert train(rows, config=Config(epochs=10))[0].folder == other.folder
    assert train.trained == []
    assert train(rows)[0].folder.name == "seed-0"
    assert train.trained == []


def test_several_devices_a_row_are_other_settings(train, capsys):
    train([row("HLCP")])
    other = train([row("HLCP")], devices_per_row=2)[0]
    assert other.folder.name.startswith("seed-0-")
    assert "HLCP: devices_per_row changed from None to 2" in capsys.readouterr().out
    assert train([row("HLCP")])[0].folder.name == "seed-0"
    assert train.trained == []


def test_other_labels_are_other_settings(train, data):
    train([row("HLCP")])
    changed = split_as(data, *data.frame["split"], labels="other")
    assert train([row("HLCP")], changed)[0].folder.name != "seed-0"


def test_another_split_is_another_setting_and_is_written_down(tmp_path, train, data):
    train([row("HLCP")])
    saved = tmp_path / "p" / "plco" / "split.csv.gz"
    assert pd.read_csv(saved)["split"].tolist() == ["train", "val", "test", "test"]
    other = split_as(data, "val", "train", "test", "test")
    assert train([row("HLCP")], other)[0].folder.name != "seed-0"


def test_the_record_of_a_run_has_the_hash_of_its_split(train, data):
    (run,) = train([row("HLCP")])
    recorded = json.loads((run.folder / "config.json").read_text())
    assert recorded["settings"]["data"]["split"] == splits.digest(data.frame)


def test_a_row_follows_the_row_it_starts_from_but_not_what_it_ignores(train):
    def both():
        return [row("HLCP", ignores=("finetune",)), row("fine", start_from="HLCP")]

    train(both())
    parent, child = train(both(), config=Config(finetune=3))
    assert parent.folder.name == "seed-0"
    assert child.folder.name != "seed-0"
    parent, child = train(both(), config=Config(rate=1.0))
    assert parent.folder.name != "seed-0"
    assert child.folder.name != "seed-0"


def test_what_a_row_ignores_must_be_a_setting(train):
    with pytest.raises(ValueError, match="HLCP ignores finetuned, which Config does not have"):
        train([row("HLCP", ignores=("finetuned",))])


def test_wanted_rows_bring_what_they_need(train):
    fusion = Combined("fusion", ["fine", "c"])
    rows = [row("HLCP"), row("fine", start_from="HLCP"), row("c"), row("d"), fusion]

    def wanted(*names: str, rows=rows) -> list[str]:
        return [run.row.name for run in train(rows, names=names)]

    assert wanted("fusion") == ["HLCP", "fine", "c", "fusion"]
    assert wanted("d,c") == ["c", "d"]
    assert wanted("c, longer", rows=[row("c"), row("c, longer")]) == ["c, longer"]
    with pytest.raises(RunError, match=r"no row 'e'; the rows are HLCP, fine"):
        wanted("e")


def test_combined_rows_come_from_predictions_alone(tmp_path, train, monkeypatch):
    def mean(one, two):
        return (one.probabilities + two.probabilities) / 2

    rows = [row("one"), row("two")]
    for run, value in zip(train(rows), (0.2, 0.6), strict=True):
        finish(run, value)

    def never(*_):
        raise AssertionError("a combined row needs no network")

    monkeypatch.setattr(loop.backend, "start", never)
    runs = train([*rows, Combined("mean", ["one", "two"], mean)])
    combined = predictions.load(runs[-1].folder / "predictions.npz")
    np.testing.assert_allclose(combined.probabilities, 0.4)
    assert combined.meta["of"] == ["one", "two"]
    recorded = json.loads((runs[-1].folder / "config.json").read_text())
    assert recorded["sessions"][-1]["versions"]["numpy"] == np.__version__


def test_a_row_that_fails_stops_the_rows_that_need_it_and_no_others(train, capsys):
    rows = [
        row("HLCP"),
        row("fine", start_from="HLCP"),
        row("BR"),
        Combined("both", ["fine", "BR"]),
    ]
    train.failing.append("HLCP")
    runs = train(rows)
    assert train.trained == ["HLCP", "BR"]
    failed = plan.failed_rows(runs)
    assert failed == {"HLCP": "NaN in epoch 1", "fine": "needs HLCP", "both": "needs fine"}
    with pytest.raises(SystemExit) as end:
        loop.finish(runs)
    assert end.value.code == 1
    assert "3 of 4 runs failed" in capsys.readouterr().err
    train(rows)
    assert train.trained == []  # what failed is not tried again by itself
    assert "HLCP, seed 0 failed before (NaN in epoch 1); --retry-failed" in capsys.readouterr().out
    train.failing.clear()
    runs = train(rows, retry_failed=True)
    assert train.trained == ["HLCP", "fine"]
    assert all(run.finished for run in runs)


def test_tables_and_pages_of_runs_are_sealed_too(train):
    (run,) = train([row("a")])
    folder, page = run.folder.parents[1], run.folder / "details.md"
    for path in (folder / "table.md", page):
        path.write_text("AUC .812")
    loop.finish([run])
    assert safefiles.changed_since_sealed(folder) == []
    page.write_text("AUC .912")
    assert [path.name for path in map(Path, safefiles.changed_since_sealed(folder))] == [
        "details.md"
    ]


def test_predictions_of_another_run_are_set_aside_and_made_again(train, capsys):
    rows = [row("a"), row("b")]
    first, second = train(rows)
    (second.folder / "predictions.npz").write_bytes((first.folder / "predictions.npz").read_bytes())
    train(rows)
    assert train.trained == ["b"]
    assert (second.folder / "damaged-predictions.npz").exists()
    assert "is another run's" in capsys.readouterr().out


def test_unwritable_results_are_one_sentence(tmp_path, train, data):
    (tmp_path / "p").touch()
    with pytest.raises(DataError, match="cannot be written"):
        train([row("a")])


def test_phantoms_never_share_a_folder_with_images(data):
    options = argparse.Namespace(results_dir=Path("r"), dataset="plco")
    drawn = data._replace(not_comparable=PHANTOMS)
    assert loop.paper_folder("p", options, data) == Path("r/p/plco")
    assert loop.paper_folder("p", options, drawn) == Path("r/p/plco-phantoms")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_broken_predictions_are_one_sentence(tmp_path, content):
    with pytest.raises(EvaluationError, match="no predictions file"):
        predictions.load(tmp_path / "none.npz")
    path = tmp_path / "p.npz"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match="is no predictions file of this suite"):
        predictions.load(path)


def test_a_run_of_an_earlier_version_stays_and_is_trained_again(train, capsys):
    (before,) = train([row("HLCP")])
    record = json.loads((before.folder / "config.json").read_text())
    del record["sha256"]
    (before.folder / "config.json").write_text(json.dumps(record))
    (before.folder / "predictions.npz").write_bytes(b"of an earlier version")
    capsys.readouterr()
    (again,) = train([row("HLCP")])
    assert again.folder.name.startswith("seed-0-")
    assert (before.folder / "predictions.npz").read_bytes() == b"of an earlier version"
    assert "config.json was made by an earlier version" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("backbones", "threads"),
    [(["tiny", "tiny_plain"], "1"), (["tiny", "densenet121"], None), ([], None)],
)
def test_a_table_of_small_networks_computes_with_one_thread(monkeypatch, backbones, threads):
    monkeypatch.setattr(os, "environ", {})
    rows = [row(name, network={"backbone": name}) for name in backbones] + [Combined("both", [])]
    loop._choose_threads(rows)
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == threads


def test_threads_that_a_user_chose_stay(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    loop._choose_threads([row("small", network={"backbone": "tiny"})])
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "3"
