"""Which runs a table needs, in which folders: every wanted row with every seed.

A run is known by its settings: the row, the seed, Config, the runs that it starts from, and the
data by their pixels, labels and split. Equal settings find their folder again, wherever the dataset
lies and in whatever order its files list the images; other settings get a folder of their own.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import safefiles
from evaluation import EvaluationError, predictions
from models import backbones
from reproduce import RunError
from reproduce.engine import state
from reproduce.engine.rows import Combined, Data, Row, Run, parents
from reproduce.engine.search import Chosen, config_of


def make(folder: Path, rows: Sequence[Row | Combined], data: Data, config, options) -> list[Run]:
    """A run for every row and seed, in an order in which parents come first."""
    runs: dict[tuple[str, int], Run] = {}
    notes: dict[str, list[str]] = {}
    with safefiles.lock(folder / ".plan.lock", waiting=f"Waiting for another process in {folder}."):
        for row in rows:
            truth = _truth(row, data, runs)
            for seed in options.seeds:
                made_from = {name: runs[name, seed].digest for name in parents(row)}
                settings = _settings(row, seed, data, config) | {"from": made_from}
                if options.devices_per_row > 1:  # sums in another order are other numbers
                    settings["devices_per_row"] = options.devices_per_row
                settings = json.loads(json.dumps(settings))  # as it will be read back
                text = json.dumps(settings, sort_keys=True)
                digest = hashlib.sha256(text.encode()).hexdigest()[:12]
                below = folder / re.sub(r"[^\w.+-]+", "-", row.name).strip("-")
                own, changes = _own_folder(below, f"seed-{seed}", settings, digest)
                run = runs[row.name, seed] = Run(row, seed, own, settings, digest, truth)
                _claim(run)
                notes.setdefault(changes, []).append(row.name)
    notes.pop("", None)
    for changes, names in notes.items():
        print(
            f"{', '.join(dict.fromkeys(names))}: {changes} since the last run; the earlier "
            "results stay, the new ones go to folders of their own.",
            flush=True,
        )
    return list(runs.values())


def _settings(row: Row | Combined, seed: int, data: Data, config) -> dict:
    """Everything that decides what a row's numbers are, but the runs that it is made from."""
    settings: dict = {"row": row.name, "seed": seed, "data": data_of(row, data).facts["identity"]}
    if isinstance(row, Combined):
        return settings
    fields = dataclasses.asdict(config_of(row, config))
    if unknown := [name for name in row.ignores if name not in fields]:
        raise ValueError(f"{row.name} ignores {', '.join(unknown)}, which Config does not have")
    settings["seed"] += row.fit.reseed
    kept = {name: value for name, value in fields.items() if name not in row.ignores}
    if "weights" in kept:
        kept["weights"] = _weights_of(row, kept["weights"])
    return settings | kept | row.network | row.settings


def _weights_of(row: Row, setting: str) -> str:
    """What a row's network starts from: of a file, its hash, wherever it lies."""
    start = backbones.weights_of(setting, row.network["backbone"])
    return start if start in ("imagenet", "none") else f"file {safefiles.sha256(start)[:16]}"


def data_of(row: Row | Combined, data: Data) -> Data:
    """The images that a row sees: the script's, or its own."""
    return row.data() if isinstance(row, Row) and row.data else data


def _truth(row: Row | Combined, data: Data, runs: dict[tuple[str, int], Run]) -> dict[str, str]:
    """The digest of the images and the truth of every set that a row predicts."""
    if isinstance(row, Combined):
        return next(run.truth for (name, _), run in runs.items() if name == row.of[0])
    frame = data_of(row, data).frame
    digests = {}
    for name in sorted({*frame["split"]} - {"train"}):
        in_set = (frame["split"] == name).to_numpy()
        ids, truth = frame["image_path"][in_set].to_numpy(), row.task.truth[in_set]
        digests[name] = predictions.truth_digest(ids, truth, row.task.labels)
    return digests


def failures(runs: Sequence[Run]) -> dict[Path, str]:
    """Why runs failed, by their folders: their own reason, or the row that they needed.

    The chosen row of a search does without the candidates that failed.
    """
    failed: dict[tuple[str, int], Run] = {}
    reasons = {}
    for run in runs:  # parents come first
        reason = state.failure(run)
        if not run.finished and not reason and not isinstance(run.row, Chosen):
            needed = [name for name in parents(run.row) if (name, run.seed) in failed]
            reason = f"needs {needed[0]}" if needed else ""
        if reason:
            failed[run.row.name, run.seed] = run
            reasons[run.folder] = reason
    return reasons


def failed_rows(runs: Sequence[Run]) -> dict[str, str]:
    """Why rows failed, by their names; of several seeds, the first that did."""
    reasons = failures(runs)
    rows: dict[str, str] = {}
    for run in runs:
        if run.folder in reasons:
            rows.setdefault(run.row.name, reasons[run.folder])
    return rows


def _own_folder(below: Path, name: str, settings: dict, digest: str) -> tuple[Path, str]:
    """The folder of these settings, and what differs if others hold the plain name."""
    plain, own = below / name, below / f"{name}-{digest}"
    try:
        known = state.record(plain)
    except RunError as error:
        if _is_of(plain, digest):
            (plain / state.RECORD).unlink()  # it is written again
            return plain, ""
        return own, f"{str(error).partition(' (')[0]}, and its results may have other settings,"
    if known is None:
        foreign = any(plain.glob("*.npz")) or any(plain.glob("*.h5"))
        if foreign and not _is_of(plain, digest):
            return own, f"{plain} has no config.json, so its results may have other settings,"
        return plain, ""
    if known["settings"] == settings:
        return plain, ""
    if own.exists():
        return own, ""
    return own, _changes(known["settings"], settings)


def _is_of(folder: Path, digest: str) -> bool:
    """Whether a folder's predictions or state are of the run of this digest."""
    try:
        finished_by = predictions.load(folder / state.FINISHED).meta.get("run", "")
    except EvaluationError:
        finished_by = ""
    return digest in (finished_by, state.stopped_by(folder))


def _changes(known: dict, settings: dict) -> str:
    """What differs between two runs' settings, by name."""
    changes = []
    for field in {**known, **settings}:
        before, now = known.get(field), settings.get(field)
        if before == now:
            continue
        if field == "data" and isinstance(before, dict) and isinstance(now, dict):
            parts = [part for part in {**before, **now} if before.get(part) != now.get(part)]
            changes.append(f"the data's {', '.join(parts)} changed")
        elif field == "from" and now:
            changes.append(f"what {', '.join(now)} was made with changed")
        else:
            changes.append(f"{field} changed from {_short(before)} to {_short(now)}")
    return " and ".join(changes)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 40 else text[:37] + "..."


def _claim(run: Run) -> None:
    """Write the settings into a run's folder, so that no other settings take it meanwhile."""
    if not (run.folder / state.RECORD).exists():
        claim = {"settings": run.settings, "digest": run.digest, "recipe": {}, "claim": os.getpid()}
        state.write_record(run.folder, claim)


def release_claims(runs: Sequence[Run]) -> None:
    """Remove the records of runs that were planned and never begun."""
    for run in runs:
        try:
            found = state.record(run.folder)
        except RunError:
            continue
        if found and found.get("claim") == os.getpid():
            (run.folder / state.RECORD).unlink(missing_ok=True)
            for folder in (run.folder, run.folder.parent):
                if not any(folder.iterdir()):
                    folder.rmdir()
