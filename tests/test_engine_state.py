"""What runs write proves itself: damaged, foreign and missing files are refused or made again."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions
from reproduce import RunError
from reproduce.engine import plan, state
from reproduce.engine.rows import Combined, Data, Run

SETTINGS = {"row": "R", "seed": 0, "data": {"images": "1"}, "from": {}}


def run_in(folder: Path, digest: str = "abc", **settings) -> Run:
    return Run(Combined("R", ()), 0, folder, SETTINGS | settings, digest)


def begun(folder: Path, **settings) -> Run:
    run = run_in(folder, **settings)
    state.begin(run, Data(None, None, {"dataset": "plco"}), "cpu", {"script": "reproduce.x"})
    return run


def fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def after_epoch(run: Run, epoch: int, best: bytes | None = None, before: dict | None = None):
    """The files after an epoch whose variables are all `epoch`; best weights where given."""
    kept = before or {}
    if best is not None:
        kept = state.save_weights(run, lambda path: fill(path, best), 100, epoch)
    arrays = [np.full((2, 3), epoch, np.float32), np.array(epoch, np.int64)]
    lines = [{"epoch": number, "val": number} for number in range(1, epoch + 1)]
    state.save_epoch(run, arrays, lines, kept)
    return kept


SHAPES = [(2, 3), ()]


def test_a_state_comes_back_as_it_was(tmp_path):
    run = begun(tmp_path / "run")
    best = after_epoch(run, 2, b"weights")
    read, lines, kept = state.load_epoch(run, SHAPES)
    arrays = list(read)
    assert [array.dtype for array in arrays] == [np.float32, np.int64]
    assert arrays[0].tolist() == [[2.0] * 3] * 2
    assert len(lines) == 2
    assert kept == best
    assert len(state.history(run.folder)) == 2


def test_a_state_passes_through_memory_one_variable_at_a_time(tmp_path):
    run = begun(tmp_path / "run")
    shape, count = (512, 512), 20  # 1 MB each
    arrays = (np.full(shape, number, np.float32) for number in range(count))
    tracemalloc.start()
    try:
        state.save_epoch(run, arrays, [{"epoch": 1}], {})
        for number, array in enumerate(state.load_epoch(run, [shape] * count).arrays):
            assert array[0, 0] == number
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "foreign", "shape", "no best"])
def test_a_run_begins_again_where_its_state_is_damaged(tmp_path, capsys, damage):
    run = begun(tmp_path / "run")
    after_epoch(run, 1, b"weights")
    path, shapes = run.folder / state.STATE, SHAPES
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
    assert state.load_epoch(run, shapes) == ([], [], {})
    assert "begins again" in capsys.readouterr().out
    assert (run.folder / "damaged-state.npz").exists()
    assert not path.exists()


def test_best_weights_and_state_agree_after_a_kill_between_their_writes(tmp_path):
    """Also with a loss that does not repeat: the epoch under way may score otherwise next time."""
    run = begun(tmp_path / "run")
    after_epoch(run, 1, b"of epoch 1")
    state.save_weights(run, lambda path: fill(path, b"of epoch 2, then killed"), 100, 2)
    _, lines, best = state.load_epoch(run, SHAPES)
    assert len(lines) == 1
    assert (run.folder / best["file"]).read_bytes() == b"of epoch 1"
    after_epoch(run, 2, before=best)  # this time epoch 2 is no better
    assert [path.name for path in run.folder.glob("*.weights.h5")] == ["epoch-1.weights.h5"]
    state.keep_best(run, best)
    assert state.weights_of(run.folder).read_bytes() == b"of epoch 1"


def test_a_kill_between_the_last_name_and_the_record_is_gone_on_from(tmp_path):
    run = begun(tmp_path / "run")
    best = after_epoch(run, 1, b"weights")
    (run.folder / best["file"]).rename(run.folder / state.WEIGHTS)
    assert state.load_epoch(run, SHAPES).best == best
    state.keep_best(run, best)
    assert state.weights_of(run.folder).read_bytes() == b"weights"


def test_weights_of_another_run_are_refused_with_the_way_out(tmp_path):
    run = begun(tmp_path / "run")
    state.keep_best(run, after_epoch(run, 1, b"weights"))
    path = run.folder / state.WEIGHTS
    path.write_bytes(b"others")
    with pytest.raises(state.RowFailed, match=r"is not the file that this run wrote.*delete"):
        state.weights_of(run.folder)
    path.unlink()
    with pytest.raises(state.RowFailed, match=r"is gone.*run its script again"):
        state.weights_of(run.folder)
    assert not state.is_trained(run, state.record(run.folder))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3, "recipe": {}}', "\x00\x01"])
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json is damaged, or .*: delete .* run its script"):
        state.record(tmp_path)


def test_a_record_that_was_edited_is_refused(tmp_path):
    run = begun(tmp_path / "run")
    path = run.folder / state.RECORD
    assert state.record(run.folder)["settings"] == SETTINGS
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RunError, match="was changed after the run wrote it"):
        state.record(run.folder)


def test_sessions_are_appended_with_the_epochs_that_they_trained(tmp_path):
    run = begun(tmp_path / "run")
    after_epoch(run, 2, b"weights")  # and killed
    begun(tmp_path / "run")
    state.end_session(run.folder)
    sessions = state.record(run.folder)["sessions"]
    assert [session["epochs"] for session in sessions] == [[0, 2], [2, 2]]
    assert {"host", "device", "versions", "commit", "command"} <= sessions[0].keys()


def predict(
    run: Run,
    truth: float = 1.0,
    name: str = state.FINISHED,
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
    assert state.usable_predictions(run)
    assert state.load_predictions(run.folder, run.digest).ids.tolist() == ["a", "b"]


@pytest.mark.parametrize("wrong", ["another run's", "another truth", "damaged"])
def test_foreign_and_damaged_predictions_are_set_aside_and_made_again(tmp_path, capsys, wrong):
    run = with_truth(tmp_path / "run")
    predict(
        run, truth=0.0 if wrong == "another truth" else 1.0, by="other" if "run" in wrong else None
    )
    path = run.folder / state.FINISHED
    if wrong == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    assert not state.usable_predictions(run)
    assert "set aside" in capsys.readouterr().out
    assert (run.folder / "damaged-predictions.npz").exists()
    assert not run.finished


def test_a_lost_further_set_is_predicted_again(tmp_path, capsys):
    run = with_truth(tmp_path / "run")
    run = run._replace(truth=run.truth | {"public": "1"})
    predict(run)
    assert not state.usable_predictions(run)
    assert "lacks predictions-public.npz" in capsys.readouterr().out


def test_validation_predictions_are_not_missed_but_made_again_once_damaged(tmp_path, capsys):
    run = with_truth(tmp_path / "run")
    run = run._replace(truth=run.truth | {"val": run.truth["test"]})
    predict(run)
    assert state.usable_predictions(run)  # of an earlier version, which kept none
    predict(run, name=state.VALIDATION, of="val")
    assert state.usable_predictions(run)
    assert [path.name for path in state.all_predictions(run.folder)][-1] == state.FINISHED
    path = run.folder / state.VALIDATION
    path.write_bytes(path.read_bytes()[:-20])
    assert not state.usable_predictions(run)
    assert "lacks validation.npz, which is made again" in capsys.readouterr().out
    assert not run.finished


def test_predictions_copied_between_runs_are_not_tabled(tmp_path):
    one, other = with_truth(tmp_path / "one"), begun(tmp_path / "other")
    predict(one)
    shutil.copy(one.folder / state.FINISHED, other.folder)
    with pytest.raises(EvaluationError, match="was not written by the run"):
        state.load_predictions(other.folder, "another digest")


def test_what_changed_is_said_by_its_name():
    known = {
        "row": "R",
        "data": {"images": "1", "labels": "2", "split": "3"},
        "size": 64,
        "from": {},
    }
    other = known | {"data": {"images": "9", "labels": "2", "split": "3"}, "size": 32}
    assert plan._changes(known, other) == "the data's images changed and size changed from 64 to 32"


def test_a_planned_run_that_never_began_leaves_nothing(tmp_path):
    run = run_in(tmp_path / "R" / "seed-0")
    plan._claim(run)
    assert json.loads((run.folder / state.RECORD).read_text())["settings"] == SETTINGS
    plan.release_claims([run])
    assert not run.folder.exists()
    begun(run.folder)
    plan.release_claims([run])
    assert run.folder.exists()


def test_results_whose_record_is_gone_are_taken_only_for_the_same_settings(tmp_path):
    run = begun(tmp_path / "R" / "seed-0")
    predict(run)
    (run.folder / state.RECORD).unlink()
    same, _ = plan._own_folder(tmp_path / "R", "seed-0", SETTINGS, run.digest)
    assert same == run.folder
    other, why = plan._own_folder(tmp_path / "R", "seed-0", SETTINGS, "other")
    assert other.name == "seed-0-other"
    assert "has no config.json" in why


def test_a_failure_counts_for_the_settings_that_failed(tmp_path):
    run = begun(tmp_path / "run")
    state.record_failure(run, state.RowFailed("NaN in epoch 2", "Lower the rate."))
    assert state.failure(run) == "NaN in epoch 2"
    assert state.failure(run._replace(digest="other")) == ""
    (run.folder / state.FAILED).write_text("[]")
    assert state.failure(run) == ""
