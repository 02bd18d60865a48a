"""The rows of a paper, one after another: planned, ordered, trained where they are due.

    results/chen2019/plco/HLCP/seed-0/    the files of one run, listed in state.py

A row that has predictions for the same settings is not trained again; other settings go to a
folder of their own. Nothing here imports TensorFlow until a row has to be trained.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from data import splits
from data.progress import TimeLeft
from evaluation import predictions
from reproduce import RunError
from reproduce.engine import backend, state
from reproduce.engine.rows import Combined, Data, Row, Run, parents


def paper_folder(paper: str, options, data: Data) -> Path:
    """results/PAPER/DATASET; phantoms never share a folder with real images."""
    return options.results_dir / paper / (data.dataset + "-phantoms" * data.phantom)


def train(paper: str, rows: Sequence[Row | Combined], data: Data, config, options) -> list[Run]:
    """Every wanted row with every seed, trained or found finished."""
    folder = paper_folder(paper, options, data)
    split_hash = splits.save(data.frame, folder / "split.csv.gz")
    data = data._replace(facts=data.facts | {"split": split_hash})
    plan = _plan(folder, _wanted(rows, options.rows), data, config, options.seeds)
    due = [run for run in plan if not run.finished]
    if len(due) < len(plan):
        print(f"{len(plan) - len(due)} of {len(plan)} runs are finished and stay.", flush=True)
    time_left = TimeLeft(sum(run.row.fit.epochs for run in due if isinstance(run.row, Row)))
    folders = {(run.row.name, run.seed): run.folder for run in plan}
    for run in due:
        parts = {name: folders[name, run.seed] for name in parents(run.row)}
        own = _data_of(run.row, data)
        recipe = _recipe(paper, run, parts, own, config, options)
        if isinstance(run.row, Combined):
            state.begin(run, own, "", recipe)
            _combine(run, list(parts.values()))
            continue
        device = backend.start(options.device)
        from reproduce.engine import fit  # imports the backend

        state.begin(run, own, device, recipe)
        weights = parts[run.row.start_from] / state.WEIGHTS if run.row.start_from else None
        reseeded = run._replace(seed=run.seed + run.row.fit.reseed)
        fit.train(reseeded, weights, own, config, options, time_left)
    return plan


def _data_of(row: Row | Combined, data: Data) -> Data:
    return row.data() if isinstance(row, Row) and row.data else data


def _wanted(rows: Sequence[Row | Combined], names: Sequence[str] | None) -> list[Row | Combined]:
    """The rows asked for and those they start from or combine, in the script's order."""
    by_name = {row.name: row for row in rows}
    if not names:
        return list(rows)
    given = [[text] if text in by_name else text.split(",") for text in names]  # names may have one
    asked, needed = [name.strip() for texts in given for name in texts], set()
    while asked:
        if (name := asked.pop()) not in by_name:
            raise RunError(f"There is no row {name!r}; the rows are {', '.join(by_name)}.")
        needed.add(name)
        asked += parents(by_name[name])
    return [row for row in rows if row.name in needed]


def _plan(folder: Path, rows, data: Data, config, seeds: Sequence[int]) -> list[Run]:
    """A folder for every row and seed: the one with equal settings, or a new one."""
    plan, digests, notes = [], {}, {}
    for row in rows:
        for seed in seeds:
            settings = _settings(row, seed, data, config)
            settings["from"] = {name: digests[name, seed] for name in parents(row)}
            settings = json.loads(json.dumps(settings))  # as it will be read back
            text = json.dumps(settings, sort_keys=True)
            digests[row.name, seed] = hashlib.sha256(text.encode()).hexdigest()[:12]
            below = folder / re.sub(r"[^\w.+-]+", "-", row.name).strip("-")
            own, changes = _own_folder(below, f"seed-{seed}", settings, digests[row.name, seed])
            plan.append(Run(row, seed, own, settings))
            notes.setdefault(changes, []).append(row.name)
    notes.pop("", None)
    for changes, names in notes.items():
        print(
            f"{', '.join(dict.fromkeys(names))}: {changes} since the last run; the earlier "
            "results stay, the new ones go to folders of their own.",
            flush=True,
        )
    return plan


def _settings(row: Row | Combined, seed: int, data: Data, config) -> dict:
    """Everything that decides what a row's numbers are, but the rows that it is made from."""
    settings = {"row": row.name, "seed": seed, "data": _data_of(row, data).facts}
    if isinstance(row, Combined):
        return settings
    fields = dataclasses.asdict(config)
    if unknown := [name for name in row.ignores if name not in fields]:
        raise ValueError(f"{row.name} ignores {', '.join(unknown)}, which Config does not have")
    settings["seed"] += row.fit.reseed
    kept = {name: value for name, value in fields.items() if name not in row.ignores}
    return settings | kept | row.network | row.settings


def _own_folder(below: Path, name: str, settings: dict, digest: str) -> tuple[Path, str]:
    """The folder of these settings, and what differs if others hold the plain name."""
    plain = below / name
    known = state.known_settings(plain)
    if known is None or known == settings:
        return plain, ""
    own = below / f"{name}-{digest}"
    if own.exists():
        return own, ""
    changes = [
        f"{field} changed from {_short(known.get(field))} to {_short(settings.get(field))}"
        for field in {**known, **settings}
        if known.get(field) != settings.get(field)
    ]
    return own, " and ".join(changes)


def _short(value: object) -> str:
    text = "another" if isinstance(value, dict) else str(value)
    return text if len(text) < 40 else text[:37] + "..."


def _recipe(paper: str, run: Run, parts: dict[str, Path], data: Data, config, options) -> dict:
    """What is needed to call the script's `rows` again, without the dataset."""
    return {
        "script": f"reproduce.{paper}",
        "config": dataclasses.asdict(config),
        "options": json.loads(json.dumps(vars(options), default=str)),
        "columns": list(data.frame.columns),
        "resized": data.resized,
        "parts": {name: os.path.relpath(path, run.folder) for name, path in parts.items()},
    }


def _combine(run: Run, folders: Sequence[Path]) -> None:
    """The row's probabilities of every test set that all its parts have."""
    shared = set.intersection(*({path.name for path in state.test_sets(each)} for each in folders))
    for name in sorted(shared, key=len, reverse=True):  # predictions.npz last: it means finished
        parts = [predictions.load(folder / name) for folder in folders]
        meta = parts[0].meta | {"row": run.row.name, "of": list(run.row.of)}
        combined = run.row.combine(*parts)
        predictions.save(run.folder / name, parts[0]._replace(probabilities=combined, meta=meta))
