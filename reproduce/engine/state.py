"""What a run writes into its folder, and reads back to go on after it was stopped.

    config.json          the run's settings, how to rebuild its network, and every session's machine
    state.npz            every variable after the last whole epoch; deleted at the end
    epoch-N.weights.h5   of the best epoch so far, in the end best.weights.h5
    history.csv          a line an epoch
    predictions.npz      of the test set: its presence means that the run is finished
    predictions-NAME.npz of a further set; validation.npz (not of earlier versions); log.txt
    failed.json          why the run ended early; bad-batch.txt lists the images of a NaN loss

Every file is written whole or not at all, and proves itself: weights by their hash in config.json
or state.npz, state and predictions by a digest inside and by the settings they were made with.
"""

import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import safefiles
from data import DataError, template_crop
from evaluation import EvaluationError, predictions
from reproduce import RunError
from reproduce.engine.provenance import provenance
from reproduce.engine.rows import Data, Run

RECORD, STATE, WEIGHTS, FAILED = "config.json", "state.npz", "best.weights.h5", "failed.json"
FINISHED, VALIDATION = "predictions.npz", predictions.VALIDATION


class RowFailed(RunError):
    """One row cannot be trained to its end; the others go on."""

    def __init__(self, reason: str, advice: str):
        super().__init__(f"{reason}. {advice}")
        self.reason = reason


# The record: settings, recipe, hashes and sessions


def record(folder: Path) -> dict | None:
    """A run's config.json; None if the folder has none. A RunError if it cannot be read."""
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["settings"], dict) or not isinstance(found["recipe"], dict):
            raise TypeError
        if "sha256" not in found:
            raise RunError(
                f"{path} was made by an earlier version (it holds no hashes): train that row again "
                "in another --results-dir."
            )
        if found.pop("sha256") != _digest_of(found):
            raise ValueError
        return found
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        problem = "is damaged, or was changed after the run wrote it"
    raise RunError(f"{path} {problem}: delete {folder} and run its script again.")


def begin(run: Run, data: Data, device: str, recipe: dict, chunk: int | None = None) -> dict:
    """Write down what a run is made from and on what machine; its record.

    `chunk` is how the rows before it were shuffled, on whatever machine.
    """
    before = readable_record(run.folder) or {}
    known = before if before.get("settings") == run.settings else {}
    sessions = known.get("sessions", [])
    epochs = len(history(run.folder))
    if sessions and sessions[-1]["epochs"][1] is None:  # it was killed
        sessions[-1]["epochs"][1] = epochs
    kept = {"chunk": chunk}
    kept |= {name: known[name] for name in ("chunk", "weights") if known.get(name) is not None}
    found = {
        "settings": run.settings,
        "digest": run.digest,
        "recipe": recipe,
        "data_files": data.facts.get("label_files", {}),
        **kept,
        "template": None if data.template is None else template_crop.digest(data.template),
        "sessions": [*sessions, provenance(device) | {"epochs": [epochs, None]}],
    }
    write_record(run.folder, found)
    if data.template is not None:
        template_crop.save(run.folder / "template.npz", data.template)
    return found


def add_to_record(folder: Path, **facts) -> dict:
    """Write more facts into a run's record."""
    found = (record(folder) or {}) | facts
    write_record(folder, found)
    return found


def readable_record(folder: Path) -> dict | None:
    """The same; None also if it cannot be read."""
    try:
        return record(folder)
    except RunError:
        return None


def write_record(folder: Path, found: dict) -> None:
    """Write a run's config.json with the digest that it is checked by."""
    found = json.loads(json.dumps(found))  # as it will be read back
    safefiles.write(folder / RECORD, json.dumps(found | {"sha256": _digest_of(found)}, indent=1))


def _digest_of(found: dict) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def end_session(folder: Path) -> None:
    """Note in the record up to which epoch this session came."""
    found = readable_record(folder)
    if found and found.get("sessions"):
        found["sessions"][-1]["epochs"][1] = len(history(folder))
        write_record(folder, found)


def history(folder: Path) -> pd.DataFrame:
    """A line an epoch: of a stopped run from its state, of a finished one from history.csv."""
    if (folder / STATE).exists():
        return pd.DataFrame(_about_state(folder).get("history", []))
    try:
        return pd.read_csv(folder / "history.csv")
    except (OSError, ValueError):
        return pd.DataFrame()


# The state after an epoch


class Checkpoint(NamedTuple):
    """What a stopped run goes on from."""

    arrays: Iterable[np.ndarray]  # every variable, read one at a time: together they fill memory
    history: list[dict]
    best: dict  # the file of the best weights so far, and its hash


def save_epoch(run: Run, arrays: Iterable[np.ndarray], lines: list[dict], best: dict) -> None:
    """Write the state after an epoch, a variable at a time, then the history."""
    about = {"run": run.digest, "history": lines, "best": best}
    with safefiles.whole(run.folder / STATE) as path, zipfile.ZipFile(path, "w") as archive:
        digest = hashlib.sha256()
        for number, array in enumerate(arrays):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            digest.update(np.ascontiguousarray(array).data)
        about["digest"] = digest.hexdigest()
        archive.writestr("about.json", json.dumps(about))
    safefiles.write(run.folder / "history.csv", pd.DataFrame(lines).to_csv(index=False))
    for weights in run.folder.glob("epoch-*.weights.h5"):
        if weights.name != best.get("file"):
            weights.unlink()


def load_epoch(run: Run, shapes: list[tuple[int, ...]]) -> Checkpoint:
    """The state after the last whole epoch; an empty one of a run that begins, or begins again."""
    path = run.folder / STATE
    nothing = Checkpoint([], [], {})
    if not path.exists():
        return nothing
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(archive["about.json"])
            digest = hashlib.sha256()
            for number, shape in enumerate(shapes):
                array = archive[str(number)]
                digest.update(np.ascontiguousarray(array).data)
                if array.shape != shape:
                    raise ValueError("it is of another network")
        if digest.hexdigest() != about["digest"]:
            raise ValueError("its numbers have changed")
        if about["run"] != run.digest:
            raise ValueError("it is another run's")
        best = about["best"]
        if best and _best_file(run.folder, best) is None:
            raise ValueError(f"{best['file']}, the best weights so far, is gone or damaged")
        return Checkpoint(_arrays(path, len(shapes)), list(about["history"]), best)
    except safefiles.DAMAGED_ARCHIVE as error:
        aside = set_aside(path)
        say(run, f"begins again: its state could not be read ({error}) and is now {aside.name}")
        return nothing


def _arrays(path: Path, count: int) -> Iterator[np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        yield from (archive[str(number)] for number in range(count))


def stopped_by(folder: Path) -> str:
    """The digest of the run that a folder's state is of; empty if there is none to go on from."""
    return str(_about_state(folder).get("run", ""))


def _about_state(folder: Path) -> dict:
    """What a state says of itself; nothing if it is gone or damaged."""
    try:
        with zipfile.ZipFile(folder / STATE) as archive:
            return dict(json.loads(archive.read("about.json")))
    except safefiles.DAMAGED_ARCHIVE:
        return {}


def _best_file(folder: Path, best: dict) -> Path | None:
    """The weights of the best epoch: under their own name, or their last one already."""
    for path in (folder / best["file"], folder / WEIGHTS):
        if path.is_file() and safefiles.sha256(path) == best["sha256"]:
            return path
    return None


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that nothing reads it again."""
    aside = path.with_name(f"damaged-{path.name}")
    path.replace(aside)
    return aside


# Weights


def save_weights(run: Run, save: Callable, bytes_needed: int, epoch: int) -> dict:
    """Write the weights of the best epoch so far by `save(path)`; their name and hash."""
    name = f"epoch-{epoch}.weights.h5"
    with safefiles.whole(run.folder / name) as path:
        # HDF5 crashes the process when a disk fills up under it
        if shutil.disk_usage(run.folder).free < 1.1 * bytes_needed + (1 << 20):
            raise OSError(28, "No space left on device")
        save(path)
        digest = safefiles.sha256(path)
    return {"file": name, "sha256": digest}


def keep_best(run: Run, best: dict) -> None:
    """Give the best weights their last name, and write their hash into the record."""
    path = _best_file(run.folder, best)
    if path is None:
        raise RowFailed(
            f"{run.folder / best['file']} is gone or damaged",
            f"Delete {run.folder} and run the same command again.",
        )
    path.replace(run.folder / WEIGHTS)
    add_to_record(run.folder, weights=best["sha256"])


def weights_of(folder: Path) -> Path:
    """The weights that a run ended with, if they are the ones that it wrote."""
    path, found = folder / WEIGHTS, record(folder) or {}
    if not path.is_file():
        problem = "is gone"
    elif found.get("weights") is None:
        problem = "has no hash in config.json, so nothing tells whose weights it holds"
    elif safefiles.sha256(path) != found["weights"]:
        problem = "is not the file that this run wrote"
    else:
        return path
    raise RowFailed(
        f"{path} {problem}",
        f"Put the file back, or delete {folder} and run its script again.",
    )


def is_trained(run: Run, record: dict) -> bool:
    """Whether only predictions are missing; weights that cannot be used are trained again."""
    if not record.get("weights"):
        return False
    try:
        weights_of(run.folder)
    except RowFailed as failure:
        say(run, f"trains again: {failure.reason}")
        add_to_record(run.folder, weights=None)
        return False
    say(run, "is trained already and predicts anew")
    return True


def template_of(folder: Path) -> np.ndarray | None:
    """The template that a run's images were cut by; None if they were cut at the centre."""
    found = record(folder) or {}
    if not found.get("template"):
        return None
    path = folder / "template.npz"
    again = f"put the file back, or delete {folder} and run its script again."
    if not path.is_file():
        raise RunError(f"{path} is gone, without which its images cannot be cut: {again}")
    template = template_crop.load(path)
    if template_crop.digest(template) != found["template"]:
        raise RunError(f"{path} is not the template that this run was trained with: {again}")
    return template


# Predictions


def test_sets(folder: Path) -> list[Path]:
    """A run's predictions: of the test set, and of any further set NAME in predictions-NAME.npz."""
    return sorted(folder.glob("predictions*.npz"))


def all_predictions(folder: Path) -> list[Path]:
    """The same and, where the run kept them, those of the validation set; the test set's last."""
    paths = [*test_sets(folder), *folder.glob(VALIDATION)]
    return sorted(paths, key=lambda path: path.name == FINISHED)


def file_of(name: str) -> str:
    """The file of a set's predictions."""
    return {"test": FINISHED, "val": VALIDATION}.get(name, f"predictions-{name}.npz")


def load_predictions(folder: Path, run: str, name: str = FINISHED) -> predictions.Predictions:
    """A set's predictions, if the run of this digest wrote them; "" takes anybody's."""
    found = predictions.load(folder / name)
    if run and found.meta.get("run") != run:
        raise EvaluationError(
            f"{folder / name} was not written by the run in {folder}: delete the file and run its "
            "script again, which predicts anew without training."
        )
    return found


def usable_predictions(run: Run) -> bool:
    """Whether a run is finished; predictions that cannot be used are set aside."""
    if not (run.folder / FINISHED).exists():
        return False
    for path in (before := all_predictions(run.folder)):
        try:
            found = predictions.load(path)
            if found.meta.get("run") != run.digest:
                raise EvaluationError(f"{path} is another run's.")
            if problem := _unlike_the_data(run, found):
                raise EvaluationError(f"{path} {problem}.")
        except EvaluationError as error:
            print(f"{error} It is set aside as {set_aside(path).name} and made again.", flush=True)
    missing = [name for name in run.truth if not (run.folder / file_of(name)).exists()]
    if lacking := [name for name in missing if name != "val" or run.folder / VALIDATION in before]:
        (run.folder / FINISHED).unlink(missing_ok=True)
        print(f"{run.name} lacks {file_of(lacking[0])}, which is made again.", flush=True)
    return not lacking


def _unlike_the_data(run: Run, found: predictions.Predictions) -> str:
    """What in predictions is not of this row's images and truth."""
    expected = run.truth.get(str(found.meta.get("set")))
    if expected == predictions.truth_digest(found.ids, found.targets, found.labels):
        return ""
    return "holds other images, or another truth, than the data"


# Failures


def record_failure(run: Run, failure: RowFailed) -> None:
    """Write down why a run ended early."""
    content = {"run": run.digest, "reason": failure.reason, "message": str(failure)}
    safefiles.write(run.folder / FAILED, json.dumps(content, indent=1))


def failure(run: Run) -> str:
    """Why a run failed with these settings; empty if it did not."""
    try:
        found = json.loads((run.folder / FAILED).read_text(encoding="utf-8"))
        return str(found["reason"]) if found["run"] == run.digest else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def say(run: Run, text: str) -> None:
    """Print a line about a run, and add it to its log."""
    print(f"{run.name}: {text}", flush=True)
    try:
        with (run.folder / "log.txt").open("a") as log:
            log.write(f"{time.strftime('%F %T')}  {text}\n")
    except OSError as error:
        raise DataError(
            f"{run.folder / 'log.txt'} cannot be written ({error.strerror}): free some space and "
            "run the same command again."
        ) from error
