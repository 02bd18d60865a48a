"""Run folders: which runs a table needs, and what each one writes, checks and reads back.

A run is known by its settings: the description of its row, the seed, the runs that it starts from,
and the data by pixels, labels and split. The hash of the settings ends the name of its folder, so
equal settings find their folder again, wherever the dataset lies, and others never share it.

results/chen2019/plco/HLCP/seed-0-1a2b3c4d/
    config.json          settings, how to rebuild the network, and the machine of every session
    state.npz            every variable after the last whole epoch; deleted at the end
    epoch-N.weights.h5   of the best epoch so far, in the end best.weights.h5
    loss.json            the loss, with the weights computed from the training labels
    history.csv          one line per epoch
    predictions.npz      of the test set: the run is finished if this file exists
    predictions-NAME.npz of a further test set; validation.npz of the validation set; log.txt
    failed.json          why the run ended early; bad-batch.txt lists the images of a NaN loss

Every file is written whole or not at all, and can be checked: weights by their hash in config.json
or state.npz, state and predictions by a digest inside and by the settings they were made with.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import safefiles
from data import DataError, template_crop
from evaluation import EvaluationError, predictions
from models import backbones
from reproduce import RunError, __version__
from reproduce.engine.options import Options
from reproduce.engine.provenance import provenance
from reproduce.engine.rows import Combined, Data, Row, Run, describe, parents
from reproduce.engine.search import Candidate, Chosen

RECORD, STATE, WEIGHTS, FAILED = "config.json", "state.npz", "best.weights.h5", "failed.json"
FINISHED, VALIDATION = "predictions.npz", predictions.VALIDATION
LOSS = "loss.json"
RECORDED = 3  # exit code of a Ray task whose run failed and wrote down why
TABLE_FILES = (".csv", ".md", ".svg", ".png", ".gz")


class RowFailed(RunError):
    """One row cannot be trained to its end; the others continue."""

    def __init__(self, reason: str, advice: str):
        super().__init__(f"{reason}. {advice}")
        self.reason = reason


# Which runs a table needs, and where they are


def paper_folder(paper: str, options: Options, data: Data) -> Path:
    """Return results/PAPER/DATASET; phantoms never share a folder with real images."""
    return options.results_dir / paper / (data.dataset + "-phantoms" * data.phantom)


def plan(
    folder: Path, rows: Sequence[Row | Combined], data: Data, options: Options
) -> list[Run[Any]]:
    """Return a run for every row and seed, in an order in which parents come first."""
    runs: dict[tuple[str, int], Run[Any]] = {}
    digests: dict[str, dict[str, str]] = {}  # the truth of each row's test sets
    for row in rows:
        seen = data.seen_by(row)
        digests[row.name] = _truth(row, seen, digests)
        for seed in options.seeds:
            made_from = {name: runs[name, seed].digest for name in parents(row)}
            settings = settings_of(row, seed, seen, made_from, options.devices_per_row)
            digest = hashlib.sha256(_canonical(settings).encode()).hexdigest()[:12]
            name = re.sub(r"[^\w.+-]+", "-", row.name).strip("-")
            own = folder / name / f"seed-{seed}-{digest[:8]}"
            _set_aside_damaged_record(own)
            runs[row.name, seed] = Run(row, seed, own, settings, digest, digests[row.name])
    _name_other_folders(list(runs.values()))
    return list(runs.values())


def settings_of(
    row: Row | Combined, seed: int, data: Data, made_from: dict[str, str], devices: int = 1
) -> dict[str, Any]:
    """Return everything that decides the numbers of a row with one seed."""
    parts = describe(row)
    settings = {"row": parts.pop("name"), "seed": seed, "data": data.facts["identity"]}
    settings |= parts | {"from": made_from}
    if isinstance(row, Row):
        settings["seed"] += row.fit.reseed
        settings["network"]["weights"] = _weights_identity(row)
    if devices > 1:  # sums in another order are other numbers
        settings["devices_per_row"] = devices
    return settings


def _weights_identity(row: Row) -> str:
    """Return the name of a network's initial weights; of a file its hash, wherever it lies."""
    start = backbones.weights_of(row.network.weights, row.network.backbone)
    return start if start in ("imagenet", "none") else f"file {safefiles.sha256(start)[:16]}"


def _canonical(settings: Any) -> str:
    return json.dumps(settings, sort_keys=True)


def _truth(row: Row | Combined, data: Data, known: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the digest of the images and the truth of every set that a row predicts."""
    if isinstance(row, Combined):
        return known[row.of[0]]
    truth = data.targets(row.task).truth
    digests = {}
    for name in sorted({*data.frame["split"]} - {"train"}):
        in_set = data.of_set(name)
        ids = data.frame["image_path"][in_set].to_numpy()
        digests[name] = predictions.truth_digest(ids, truth[in_set], row.task.labels)
    return digests


def _name_other_folders(runs: Sequence[Run[Any]]) -> None:
    """Print which results stay where they are, because their settings or version differ."""
    earlier: list[Path] = []
    changed: dict[str, list[str]] = {}
    for run in runs:
        if run.folder.exists():
            continue
        row_folder = run.folder.parent
        earlier += row_folder.glob(f"seed-{run.seed}")
        for other in sorted(row_folder.glob(f"seed-{run.seed}-*")):
            content = readable_record(other)
            if content is None:
                earlier.append(other)
            elif differences := _differences(content["settings"], run.settings):
                changed.setdefault(differences, []).append(run.row.name)
    for differences, names in changed.items():
        print(
            f"{', '.join(dict.fromkeys(names))}: {differences} since an earlier run; its results "
            "stay, the new ones get their own folders.",
            flush=True,
        )
    if earlier:
        print(
            f"{earlier[0]} was made by an earlier version: it stays as it is, and its row is "
            "trained again in a folder of its own. Delete the old folder if you do not need it.",
            flush=True,
        )


def _set_aside_damaged_record(folder: Path) -> None:
    """Rename a config.json that cannot be read; the run in the folder is checked by its digest."""
    try:
        record(folder)
    except RunError as error:
        aside = set_aside(folder / RECORD)
        print(f"{str(error).partition(':')[0]}. It is now {aside.name}.", flush=True)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in words which settings differ."""
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    made_from = [name for name in names if name.startswith("from.")]
    words = [
        f"{name} changed from {_short(old.get(name))} to {_short(new.get(name))}"
        if not name.startswith("data.")
        else f"the {name.replace('.', ' ')} changed"
        for name in names
        if name not in made_from
    ]
    if made_from and not words:
        words = [f"{', '.join(name.removeprefix('from.') for name in made_from)} changed"]
    return " and ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every value in nested dictionaries."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 40 else text[:37] + "..."


# config.json: settings, how to rebuild the network, hashes and sessions


def record(folder: Path, earlier: bool = False) -> dict[str, Any] | None:
    """Return a run's config.json, or None if there is none; raise a RunError if it is damaged.

    The records of earlier versions are refused, unless `earlier` asks for them.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        old = isinstance(content, dict) and "settings" in content and "version" not in content
        if old and not earlier:
            raise RunError(
                f"{path} was made by an earlier version: train that row again, which gives it a "
                "new folder and leaves this one as it is."
            )
        if content.pop("sha256") != _digest_of(content) or not isinstance(
            content["settings"], dict
        ):
            raise ValueError
        return dict(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        problem = "is damaged, or was changed after the run wrote it"
    raise RunError(f"{path} {problem}: delete {folder} and run its script again.")


def readable_record(folder: Path) -> dict[str, Any] | None:
    """Return a run's config.json, or None if it is missing or unreadable."""
    try:
        return record(folder)
    except RunError:
        return None


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Write a run's config.json with the digest that it is checked by."""
    content = json.loads(json.dumps(content))  # as it will be read back
    sealed = content | {"sha256": _digest_of(content)}
    safefiles.write(folder / RECORD, json.dumps(sealed, indent=1))


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def begin(
    run: Run[Any],
    data: Data,
    device: str,
    script: dict[str, Any],
    chunk: int | None = None,
) -> dict[str, Any]:
    """Write and return a run's record: what it is made from and on which machine.

    `script` tells how to list the script's rows again; `chunk` is how many images earlier rows
    shuffled together, on whatever machine.
    """
    before = readable_record(run.folder) or {}
    sessions = before.get("sessions", [])
    epochs = len(history(run.folder))
    if sessions and sessions[-1]["epochs"][1] is None:  # it was killed
        sessions[-1]["epochs"][1] = epochs
    kept = {name: before[name] for name in ("chunk", "weights") if before.get(name) is not None}
    content = {
        "version": __version__,
        "settings": run.settings,
        "digest": run.digest,
        **script,
        "resized": data.resized,
        "data_files": data.facts.get("label_files", {}),
        "patients": data.facts.get("patients"),
        "source": data.facts.get("source"),
        "chunk": chunk,
        **kept,
        "template": None if data.template is None else template_crop.digest(data.template),
        "sessions": [*sessions, provenance(device) | {"epochs": [epochs, None]}],
    }
    write_record(run.folder, content)
    if data.template is not None:
        template_crop.save(run.folder / "template.npz", data.template)
    return content


def script_of(paper: str, run: Run[Any], config: Any, options: Options) -> dict[str, Any]:
    """Return what is needed to list the script's rows again and to find this one among them."""
    row = run.row
    own = row.config if isinstance(row, Candidate) else config
    return {
        "paper": paper,
        "dataset": options.dataset,
        "config": dataclasses.asdict(own),
        "row": row.candidate_of if isinstance(row, Candidate) else row.name,
        "options": json.loads(json.dumps(vars(options), default=str)),
    }


def add_to_record(folder: Path, **facts: Any) -> None:
    """Write more facts into a run's record."""
    write_record(folder, (record(folder) or {}) | facts)


def end_session(folder: Path) -> None:
    """Write into the record how many epochs the run has after this session."""
    content = readable_record(folder)
    if content and content.get("sessions"):
        content["sessions"][-1]["epochs"][1] = len(history(folder))
        write_record(folder, content)


def history(folder: Path) -> pd.DataFrame:
    """Return one line per epoch: from the state of an interrupted run, else from history.csv."""
    if (folder / STATE).exists():
        return pd.DataFrame(_about_state(folder).get("history", []))
    try:
        return pd.read_csv(folder / "history.csv")
    except (OSError, ValueError):
        return pd.DataFrame()


# state.npz: everything that an interrupted run resumes from


class Checkpoint(NamedTuple):
    """The state after the last whole epoch."""

    arrays: Iterable[np.ndarray]  # every variable, read one at a time: together they fill memory
    history: list[dict[str, Any]]
    best: dict[str, str]  # the file of the best weights so far, and its hash


def save_epoch(
    run: Run[Any],
    arrays: Iterable[np.ndarray],
    epochs: list[dict[str, Any]],
    best: dict[str, str],
) -> None:
    """Write the state after an epoch, one variable at a time, then the history."""
    about: dict[str, Any] = {"run": run.digest, "history": epochs, "best": best}
    with safefiles.whole(run.folder / STATE) as path, zipfile.ZipFile(path, "w") as archive:
        digest = hashlib.sha256()
        for number, array in enumerate(arrays):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            digest.update(np.ascontiguousarray(array).data)
        about["digest"] = digest.hexdigest()
        archive.writestr("about.json", json.dumps(about))
    safefiles.write(run.folder / "history.csv", pd.DataFrame(epochs).to_csv(index=False))
    for weights in run.folder.glob("epoch-*.weights.h5"):
        if weights.name != best.get("file"):
            weights.unlink()


def load_epoch(run: Run[Any], shapes: list[tuple[int, ...]]) -> Checkpoint:
    """Return the state after the last whole epoch, or an empty one if there is none to use."""
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
            raise ValueError("it is of another run")
        best = about["best"]
        if best and _best_file(run.folder, best) is None:
            raise ValueError(f"{best['file']}, the best weights so far, is missing or damaged")
        return Checkpoint(_arrays(path, len(shapes)), list(about["history"]), best)
    except safefiles.DAMAGED_ARCHIVE as error:
        aside = set_aside(path)
        say(run, f"starts anew: its state could not be read ({error}) and is now {aside.name}")
        return nothing


def _arrays(path: Path, count: int) -> Iterator[np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        yield from (archive[str(number)] for number in range(count))


def _about_state(folder: Path) -> dict[str, Any]:
    """Return the description inside a state; empty if it is missing or damaged."""
    try:
        with zipfile.ZipFile(folder / STATE) as archive:
            return dict(json.loads(archive.read("about.json")))
    except safefiles.DAMAGED_ARCHIVE:
        return {}


def _best_file(folder: Path, best: dict[str, str]) -> Path | None:
    """Return the weights of the best epoch, under their own name or their final one."""
    for path in (folder / best["file"], folder / WEIGHTS):
        if path.is_file() and safefiles.sha256(path) == best["sha256"]:
            return path
    return None


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that nothing reads it again."""
    aside = path.with_name(f"damaged-{path.name}")
    path.replace(aside)
    return aside


# The loss, the weights and the template


def save_loss(run: Run[Any], name: str, config: dict[str, Any]) -> None:
    """Write the loss that a row is trained by, with what was computed from its labels."""
    text = json.dumps({"loss": name, **config}, default=lambda value: np.asarray(value).tolist())
    safefiles.write(run.folder / LOSS, text)


def save_weights(
    run: Run[Any], save: Callable[[Path], None], bytes_needed: int, epoch: int
) -> dict[str, str]:
    """Write the weights of the best epoch so far by `save(path)`; return their name and hash."""
    name = f"epoch-{epoch}.weights.h5"
    with safefiles.whole(run.folder / name) as path:
        # HDF5 crashes the process when a disk fills up under it
        if shutil.disk_usage(run.folder).free < 1.1 * bytes_needed + (1 << 20):
            raise OSError(28, "No space left on device")
        save(path)
        digest = safefiles.sha256(path)
    return {"file": name, "sha256": digest}


def keep_best(run: Run[Any], best: dict[str, str]) -> None:
    """Give the best weights their final name, and write their hash into the record."""
    path = _best_file(run.folder, best)
    if path is None:
        raise RowFailed(
            f"{run.folder / best['file']} is missing or damaged",
            f"Delete {run.folder} and run the same command again.",
        )
    path.replace(run.folder / WEIGHTS)
    add_to_record(run.folder, weights=best["sha256"])


def weights_of(folder: Path) -> Path:
    """Return the weights that a run ended with; raise if they are not the ones that it wrote."""
    path, content = folder / WEIGHTS, record(folder) or {}
    if not path.is_file():
        problem = "is missing"
    elif content.get("weights") is None:
        problem = "has no hash in config.json that it could be checked by"
    elif safefiles.sha256(path) != content["weights"]:
        problem = "is not the file that this run wrote"
    else:
        return path
    raise RowFailed(
        f"{path} {problem}",
        f"Put the file back, or delete {folder} and run its script again.",
    )


def is_trained(run: Run[Any], content: dict[str, Any]) -> bool:
    """Return True if only predictions are missing; damaged weights are trained again."""
    if not content.get("weights"):
        return False
    try:
        weights_of(run.folder)
    except RowFailed as failure:
        say(run, f"trains again: {failure.reason}")
        add_to_record(run.folder, weights=None)
        return False
    say(run, "is trained already and predicts again")
    return True


def template_of(folder: Path) -> np.ndarray | None:
    """Return the template that a run's images were cut by; None if they were cut at the centre."""
    content = record(folder) or {}
    if not content.get("template"):
        return None
    path = folder / "template.npz"
    again = f"put the file back, or delete {folder} and run its script again."
    if not path.is_file():
        raise RunError(f"{path} is missing, without which its images cannot be cut: {again}")
    template = template_crop.load(path)
    if template_crop.digest(template) != content["template"]:
        raise RunError(f"{path} is not the template that this run was trained with: {again}")
    return template


# Predictions


def test_sets(folder: Path) -> list[Path]:
    """Return a run's predictions of the test set and of further sets, predictions-NAME.npz."""
    return sorted(folder.glob("predictions*.npz"))


def all_predictions(folder: Path) -> list[Path]:
    """Return a run's predictions of all sets, validation included; the test set's come last."""
    paths = [*test_sets(folder), *folder.glob(VALIDATION)]
    return sorted(paths, key=lambda path: path.name == FINISHED)


def file_of(name: str) -> str:
    """Return the file name of a set's predictions."""
    return {"test": FINISHED, "val": VALIDATION}.get(name, f"predictions-{name}.npz")


def load_predictions(folder: Path, run: str, name: str = FINISHED) -> predictions.Predictions:
    """Return predictions that the run of this digest wrote; an empty digest accepts any."""
    loaded = predictions.load(folder / name)
    if run and loaded.meta.get("run") != run:
        raise EvaluationError(
            f"{folder / name} was not written by the run in {folder}: delete the file and run its "
            "script again, which predicts again without training."
        )
    return loaded


def usable_predictions(run: Run[Any]) -> bool:
    """Return True if a run is finished; predictions that cannot be used are set aside."""
    if not (run.folder / FINISHED).exists():
        return False
    for path in (before := all_predictions(run.folder)):
        try:
            loaded = predictions.load(path)
            if loaded.meta.get("run") != run.digest:
                raise EvaluationError(f"{path} is of another run.")
            expected = run.truth.get(str(loaded.meta.get("set")))
            if expected != predictions.truth_digest(loaded.ids, loaded.targets, loaded.labels):
                raise EvaluationError(
                    f"{path} holds other images, or another truth, than the data."
                )
        except EvaluationError as error:
            print(f"{error} It is set aside as {set_aside(path).name} and made again.", flush=True)
    missing = [name for name in run.truth if not (run.folder / file_of(name)).exists()]
    if lacking := [name for name in missing if name != "val" or run.folder / VALIDATION in before]:
        (run.folder / FINISHED).unlink(missing_ok=True)
        print(f"{run.name} lacks {file_of(lacking[0])}, which is made again.", flush=True)
    return not lacking


# Failures, logs, and the end of a table


def record_failure(run: Run[Any], failure: RowFailed) -> None:
    """Write down why a run ended early."""
    content = {"run": run.digest, "reason": failure.reason, "message": str(failure)}
    safefiles.write(run.folder / FAILED, json.dumps(content, indent=1))


def failure(run: Run[Any]) -> str:
    """Return why a run failed with these settings; empty if it did not."""
    try:
        content = json.loads((run.folder / FAILED).read_text(encoding="utf-8"))
        return str(content["reason"]) if content["run"] == run.digest else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def failures(runs: Sequence[Run[Any]]) -> dict[Path, str]:
    """Return why runs failed, by folder: their own reason, or the row that they needed.

    The chosen row of a search does without the candidates that failed.
    """
    failed: set[tuple[str, int]] = set()
    reasons = {}
    for run in runs:  # parents come first
        reason = failure(run)
        if not run.finished and not reason and not isinstance(run.row, Chosen):
            needed = [name for name in parents(run.row) if (name, run.seed) in failed]
            reason = f"needs {needed[0]}" if needed else ""
        if reason:
            failed.add((run.row.name, run.seed))
            reasons[run.folder] = reason
    return reasons


def failed_rows(runs: Sequence[Run[Any]]) -> dict[str, str]:
    """Return why rows failed, by name; of several seeds, the first that did."""
    reasons = failures(runs)
    rows: dict[str, str] = {}
    for run in runs:
        if run.folder in reasons:
            rows.setdefault(run.row.name, reasons[run.folder])
    return rows


def say(run: Run[Any], text: str) -> None:
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


def finish(runs: Sequence[Run[Any]]) -> None:
    """Seal the tables, which are complete now; name the rows that failed and exit with 1."""
    folder = runs[0].folder.parents[1]
    written = [
        path
        for each in (folder, *(run.folder for run in runs if run.finished))
        for path in each.iterdir()
        if (path.suffix in TABLE_FILES and path.name[0] != ".")  # unfinished files of others
        or path.name == LOSS
    ]
    safefiles.seal(folder, written)
    failed = failures(runs)
    if not failed:
        return
    print(f"\n{len(failed)} of {len(runs)} runs failed:", file=sys.stderr)
    for run in runs:
        if run.folder in failed:
            print(f"  {run.name}: {failed[run.folder]}", file=sys.stderr)
    print("The same command with --retry-failed tries them again.", file=sys.stderr)
    raise SystemExit(1)
