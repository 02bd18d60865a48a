"""The run loop without a network: flags, run folders, what is run again, what is combined."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from evaluation import predict
from reproduce import RunError, flags, run


@dataclass(frozen=True)
class Config:
    epochs: int = 9  # §3
    rate: float = 1e-4  # unstated; ours
    flip: bool = True  # §4
    finetune: int = 2  # ours
    size: int = 224  # §2
    resize: int = 256  # §2
    form: Literal["exact", "naive"] = "exact"  # eq. 2


def parsed(monkeypatch, *words: str):
    monkeypatch.setattr("sys.argv", ["chen2019", *words])
    return flags.arguments(Config, {"epochs": 2}, "A paper.", ["plco", "chexpert"])


def test_no_data_means_the_demo_and_data_the_paper(monkeypatch):
    config, options = parsed(monkeypatch)
    assert (options.preset, config.epochs, options.dataset) == ("demo", 2, "plco")
    config, options = parsed(monkeypatch, "--data-dir", "somewhere")
    assert (options.preset, config.epochs) == ("paper", 9)
    assert parsed(monkeypatch, "--data-dir", "x", "--preset", "demo")[0].epochs == 2


def test_every_field_is_a_flag_and_beats_the_preset(monkeypatch):
    words = "--epochs 3 --no-flip --rate 0.5 --seeds 2,0,2 --form naive"
    config, options = parsed(monkeypatch, *words.split())
    assert config == Config(epochs=3, rate=0.5, flip=False, form="naive")
    assert options.seeds == (2, 0)


@pytest.mark.parametrize(
    "words", [["--epoch", "3"], ["--rates", "1"], ["--resamples", "0"], ["--form", "other"]]
)
def test_unknown_flags_and_senseless_values_fail(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as end:
        parsed(monkeypatch, *words)
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_help_shows_each_setting_with_its_origin(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "9 [2]: §3" in text
    assert "0.0001: unstated; ours" in text


def test_errors_of_the_user_are_one_sentence(capsys):
    with pytest.raises(SystemExit) as end, flags.one_sentence():
        raise RunError("Do this instead.")
    assert (end.value.code, capsys.readouterr().err) == (2, "\nDo this instead.\n")
    with pytest.raises(SystemExit) as end, flags.one_sentence():
        raise KeyboardInterrupt
    assert end.value.code == 130
    with pytest.raises(ZeroDivisionError), flags.one_sentence():
        _ = 1 / 0  # a fault of ours is no sentence of theirs


@pytest.fixture
def data() -> run.Data:
    frame = pd.DataFrame({"image_path": ["a", "b"], "patient_id": ["1", "2"]})
    return run.Data(frame, Path("cache"), {"dataset": "plco", "labels": "abc"}, None)


def row(name: str, **settings) -> run.Row:
    nothing = np.zeros((2, 1))
    return run.Row(name, ["x"], nothing, nothing, None, 1, None, **settings)


def plan(folder: Path, rows, data, config=Config(), seeds=(0,)):
    return run._plan(folder, rows, data, config, seeds)


def begin(runs, data) -> None:
    for one in runs:
        run._begin(one, data)


def test_same_settings_same_folder(tmp_path, data, capsys):
    rows = [row("HLUP (naive)")]
    first = plan(tmp_path, rows, data)
    assert first[0].folder == tmp_path / "HLUP-naive" / "seed-0"
    begin(first, data)
    assert plan(tmp_path, rows, data)[0] == first[0]
    assert capsys.readouterr().out == ""


def test_changed_settings_are_a_new_folder_and_the_field_is_named(tmp_path, data, capsys):
    rows = [row("HLCP")]
    begin(plan(tmp_path, rows, data), data)
    other = plan(tmp_path, rows, data, Config(epochs=10))[0]
    assert other.folder.name.startswith("seed-0-")
    assert "HLCP: epochs changed from 9 to 10" in capsys.readouterr().out
    begin([other], data)
    assert plan(tmp_path, rows, data, Config(epochs=10))[0].folder == other.folder
    assert plan(tmp_path, rows, data)[0].folder.name == "seed-0"


def test_other_labels_are_other_settings(tmp_path, data):
    begin(plan(tmp_path, [row("HLCP")], data), data)
    changed = data._replace(facts={**data.facts, "labels": "other"})
    assert plan(tmp_path, [row("HLCP")], changed)[0].folder.name != "seed-0"


def test_a_row_follows_the_row_it_starts_from_but_not_what_it_does_not_use(tmp_path, data):
    def both():
        return [row("HLCP", unused=("finetune",)), row("fine", start_from="HLCP")]

    begin(plan(tmp_path, both(), data), data)
    parent, child = plan(tmp_path, both(), data, Config(finetune=3))
    assert parent.folder.name == "seed-0"
    assert child.folder.name != "seed-0"
    parent, child = plan(tmp_path, both(), data, Config(rate=1.0))
    assert parent.folder.name != "seed-0"
    assert child.folder.name != "seed-0"


def test_wanted_rows_bring_what_they_need():
    fusion = run.Combined("fusion", ["fine", "c"], None)
    rows = [row("HLCP"), row("fine", start_from="HLCP"), row("c"), row("d"), fusion]
    assert [one.name for one in run._wanted(rows, ["fusion"])] == ["HLCP", "fine", "c", "fusion"]
    assert [one.name for one in run._wanted(rows, ["d,c"])] == ["c", "d"]
    with_comma = [row("c"), row("c, longer")]
    assert [one.name for one in run._wanted(with_comma, ["c, longer"])] == ["c, longer"]
    with pytest.raises(RunError, match=r"no row 'e'; the rows are HLCP, fine"):
        run._wanted(rows, ["e"])


def test_combined_rows_come_from_predictions_alone(tmp_path, data):
    options = argparse.Namespace(
        results_dir=tmp_path, dataset="plco", rows=None, seeds=(0,), device="auto"
    )
    mean = run.Combined(
        "mean", ["one", "two"], lambda a, b: (a.probabilities + b.probabilities) / 2
    )
    rows = [row("one"), row("two"), mean]
    for one, value in zip(plan(tmp_path / "p" / "plco", rows[:2], data), (0.2, 0.6), strict=True):
        run._begin(one, data)
        of_both = np.full((1, 2, 1), value)
        predict.save(one.folder / "predictions.npz", "ab", "12", ["x"], [[0], [1]], of_both, {})
    runs = run.train("p", rows, data, Config(), options)
    found = predict.load(runs[-1].folder / "predictions.npz")
    np.testing.assert_allclose(found.probabilities, 0.4)
    assert found.meta["of"] == ["one", "two"]
    recorded = json.loads((runs[-1].folder / "config.json").read_text())
    assert recorded["provenance"]["versions"]["numpy"] == np.__version__


def test_unwritable_results_are_one_sentence(tmp_path, data):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        begin(plan(tmp_path / "file", [row("a")], data), data)


def test_phantoms_never_share_a_folder_with_images(data):
    options = argparse.Namespace(results_dir=Path("r"), dataset="plco")
    drawn = data._replace(not_comparable=run.PHANTOMS)
    assert run.paper_folder("p", options, data) == Path("r/p/plco")
    assert run.paper_folder("p", options, drawn) == Path("r/p/plco-phantoms")


def test_clock_tells_the_time_of_all_that_is_left():
    clock = run.Clock(4)
    assert clock.epoch_took(10) == "30 s left"
    assert clock.epoch_took(230) == "4 min left"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_broken_predictions_are_one_sentence(tmp_path, content):
    from evaluation import EvaluationError

    with pytest.raises(EvaluationError, match="no predictions file"):
        predict.load(tmp_path / "none.npz")
    path = tmp_path / "p.npz"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match="is no predictions file of this suite"):
        predict.load(path)
