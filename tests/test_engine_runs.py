"""Run folders: damaged, foreign and missing files are refused, set aside or made again."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions
from reproduce import RunError
from reproduce.engine import runs
from reproduce.engine.rows import Combined, Data, Run

SETTINGS = {"row": "R", "seed": 0, "data": {"images": "1"}, "from": {}}


def run_in(folder: Path, digest: str = "abc", **settings) -> Run:
    return Run(Combined("R", ()), 0, folder, SETTINGS | settings, digest)


def begun(folder: Path, **settings) -> Run:
    run = run_in(folder, **settings)
    runs.begin(run, Data(pd.DataFrame(), None, {"dataset": "plco"}), "cpu", {"paper": "x"})
    return run


def fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def after_epoch(run: Run, epoch: int, best: bytes | None = None, before: dict | None = None):
    """Write the files of an epoch whose variables are all `epoch`, with its best weights."""
    kept = before or {}
    if best is not None:
        kept = runs.save_weights(run, lambda path: fill(path, best), 100, epoch)
    arrays = [np.full((2, 3), epoch, np.float32), np.array(epoch, np.int64)]
    lines = [{"epoch": number, "val": number} for number in range(1, epoch + 1)]
    runs.save_epoch(run, arrays, lines, kept)
    return kept


SHAPES = [(2, 3), ()]


def test_a_state_comes_back_as_it_was(tmp_path):
    run = begun(tmp_path / "run")
    best = after_epoch(run, 2, b"weights")
    read, lines, kept = runs.load_epoch(run, SHAPES)
    arrays = list(read)
    assert [array.dtype for array in arrays] == [np.float32, np.int64]
    assert arrays[0].tolist() == [[2.0] * 3] * 2
    assert len(lines) == 2
    assert kept == best
    assert len(runs.history(run.folder)) == 2


def test_a_state_passes_through_memory_one_variable_at_a_time(tmp_path):
    run = begun(tmp_path / "run")
    shape, count = (512, 512), 20  # 1 MB each
    arrays = (np.full(shape, number, np.float32) for number in range(count))
    tracemalloc.start()
    try:
        runs.save_epoch(run, arrays, [{"epoch": 1}], {})
        for number, array in enumerate(runs.load_epoch(run, [shape] * count).arrays):
            assert array[0, 0] == number
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "foreign", "shape", "no best"])
def test_a_run_begins_again_where_its_state_is_damaged(tmp_path, capsys, damage):
    run = begun(tmp_path / "run")
    after_epoch(run, 1, b"weights")
    path, shapes = run.folder / runs.STATE, SHAPES
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        place = content.index(np.full(6, 1, np.float32).tobytes())
        path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        run = run._replace(digest="another")
    elif damage == "shape":
        shapes = [(3, 2), ()]
    else:
        (run.folder / "epoch-1.weights.h5").write_bytes(b"others")
    assert runs.load_epoch(run, shapes) == ([], [], {})
    assert "starts anew" in capsys.readouterr().out
    assert (run.folder / "damaged-state.npz").exists()
    assert not path.exists()


def test_best_weights_and_state_agree_after_a_kill_between_their_writes(tmp_path):
    """Also with a loss that does not repeat: the epoch under way may score otherwise next time."""
    run = begun(tmp_path / "run")
    after_epoch(run, 1, b"of epoch 1")
    runs.save_weights(run, lambda path: fill(path, b"of epoch 2, then killed"), 100, 2)
    _, lines, best = runs.load_epoch(run, SHAPES)
    assert len(lines) == 1
    assert (run.folder / best["file"]).read_bytes() == b"of epoch 1"
    after_epoch(run, 2, before=best)  # this time epoch 2 is no better
    assert [path.name for path in run.folder.glob("*.weights.h5")] == ["epoch-1.weights.h5"]
    runs.keep_best(run, best)
    assert runs.weights_of(run.folder).read_bytes() == b"of epoch 1"


def test_a_kill_between_the_last_name_and_the_record_is_gone_on_from(tmp_path):
    run = begun(tmp_path / "run")
    best = after_epoch(run, 1, b"weights")
    (run.folder / best["file"]).rename(run.folder / runs.WEIGHTS)
    assert runs.load_epoch(run, SHAPES).best == best
    runs.keep_best(run, best)
    assert runs.weights_of(run.folder).read_bytes() == b"weights"


def test_weights_of_another_run_are_refused_with_the_way_out(tmp_path):
    run = begun(tmp_path / "run")
    runs.keep_best(run, after_epoch(run, 1, b"weights"))
    path = run.folder / runs.WEIGHTS
    path.write_bytes(b"others")
    with pytest.raises(runs.RowFailed, match=r"is not the file that this run wrote.*delete"):
        runs.weights_of(run.folder)
    path.unlink()
    with pytest.raises(runs.RowFailed, match=r"is missing.*run its script again"):
        runs.weights_of(run.folder)
    assert not runs.is_trained(run, runs.record(run.folder))


@pytest.mark.parametrize(
    "content", ["", "[]", "3", '{"version": "1"', '{"version": "1"}', "[" * 100_000, "\x00\x01"]
)
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json is damaged, or .*: delete .* run its script"):
        runs.record(tmp_path)


def test_a_record_that_was_edited_is_refused(tmp_path):
    run = begun(tmp_path / "run")
    path = run.folder / runs.RECORD
    assert runs.record(run.folder)["settings"] == SETTINGS
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RunError, match="was changed after the run wrote it"):
        runs.record(run.folder)


def test_sessions_are_appended_with_the_epochs_that_they_trained(tmp_path):
    run = begun(tmp_path / "run")
    after_epoch(run, 2, b"weights")  # and killed
    begun(tmp_path / "run")
    runs.end_session(run.folder)
    sessions = runs.record(run.folder)["sessions"]
    assert [session["epochs"] for session in sessions] == [[0, 2], [2, 2]]
    assert {"host", "device", "versions", "commit", "command"} <= sessions[0].keys()


def predict(
    run: Run,
    truth: float = 1.0,
    name: str = runs.FINISHED,
    by: str | None = None,
    of: str = "test",
) -> None:
    found = Predictions(
        ids=np.array(["a", "b"]),
        patients=np.array(["1", "2"]),
        labels=np.array(["x"]),
        targets=np.array([[truth], [0.0]], np.float32),
        probabilities=np.array([[[0.5], [0.25]]]),
        meta={"row": "R", "run": run.digest if by is None else by, "set": of},
    )
    predictions.save(run.folder / name, found)


def with_truth(folder: Path) -> Run:
    ids, targets = np.array(["a", "b"]), np.array([[1.0], [0.0]])
    return begun(folder)._replace(truth={"test": predictions.truth_digest(ids, targets, ["x"])})


def test_predictions_of_this_run_are_kept(tmp_path):
    run = with_truth(tmp_path / "run")
    predict(run)
    assert runs.usable_predictions(run)
    assert runs.load_predictions(run.folder, run.digest).ids.tolist() == ["a", "b"]


@pytest.mark.parametrize("wrong", ["another run's", "another truth", "damaged"])
def test_foreign_and_damaged_predictions_are_set_aside_and_made_again(tmp_path, capsys, wrong):
    run = with_truth(tmp_path / "run")
    predict(
        run, truth=0.0 if wrong == "another truth" else 1.0, by="other" if "run" in wrong else None
    )
    path = run.folder / runs.FINISHED
    if wrong == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    assert not runs.usable_predictions(run)
    assert "set aside" in capsys.readouterr().out
    assert (run.folder / "damaged-predictions.npz").exists()
    assert not run.finished


def test_a_lost_further_set_is_predicted_again(tmp_path, capsys):
    run = with_truth(tmp_path / "run")
    run = run._replace(truth=run.truth | {"public": "1"})
    predict(run)
    assert not runs.usable_predictions(run)
    assert "lacks predictions-public.npz" in capsys.readouterr().out


def test_validation_predictions_are_not_missed_but_made_again_once_damaged(tmp_path, capsys):
    run = with_truth(tmp_path / "run")
    run = run._replace(truth=run.truth | {"val": run.truth["test"]})
    predict(run)
    assert runs.usable_predictions(run)  # of an earlier version, which kept none
    predict(run, name=runs.VALIDATION, of="val")
    assert runs.usable_predictions(run)
    assert [path.name for path in runs.all_predictions(run.folder)][-1] == runs.FINISHED
    path = run.folder / runs.VALIDATION
    path.write_bytes(path.read_bytes()[:-20])
    assert not runs.usable_predictions(run)
    assert "lacks validation.npz, which is made again" in capsys.readouterr().out
    assert not run.finished


def test_predictions_copied_between_runs_are_not_tabled(tmp_path):
    one, other = with_truth(tmp_path / "one"), begun(tmp_path / "other")
    predict(one)
    shutil.copy(one.folder / runs.FINISHED, other.folder)
    with pytest.raises(EvaluationError, match="was not written by the run"):
        runs.load_predictions(other.folder, "another digest")


def test_a_record_of_an_earlier_version_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"settings": {}, "recipe": {}}')
    with pytest.raises(RunError, match=r"made by an earlier version: train that row again"):
        runs.record(tmp_path)


def test_what_changed_is_named():
    known = {
        "row": "R",
        "data": {"images": "1", "labels": "2", "split": "3"},
        "network": {"size": 64},
        "from": {"P": "1"},
    }
    changed = {"data": {"images": "9", "labels": "2", "split": "3"}, "network": {"size": 32}}
    words = "the data images changed and network.size changed from 64 to 32"
    assert runs._differences(known, known | changed) == words
    assert runs._differences(known, known | {"from": {"P": "2"}}) == "P changed"


def test_a_failure_counts_for_the_settings_that_failed(tmp_path):
    run = begun(tmp_path / "run")
    runs.record_failure(run, runs.RowFailed("NaN in epoch 2", "Lower the rate."))
    assert runs.failure(run) == "NaN in epoch 2"
    assert runs.failure(run._replace(digest="other")) == ""
    (run.folder / runs.FAILED).write_text("[]")
    assert runs.failure(run) == ""
