"""The rows of a paper, one after another: every run that is due is held, trained and let go.

Several processes on one results folder share the work: who finds a run held by another takes the
next, and comes back for it. A row that fails is recorded, and the others go on.
Nothing here imports TensorFlow until a row has to be trained.
"""

import dataclasses
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import safefiles
from data import splits
from data.cache import chunk_images
from data.progress import TimeLeft
from evaluation import predictions
from models import backbones
from reproduce import RunError
from reproduce.engine import attributes, backend, plan, search, spread, state, worker
from reproduce.engine.rows import Combined, Data, Row, Run, wanted
from reproduce.engine.search import Candidate, Chosen, config_of

PAUSE = 2  # seconds between two looks at runs that other processes hold
LATE = 120  # seconds until a shared file system must show what another host has finished
SMALL = 1_000_000  # parameters of a network that gains nothing from a second thread


class Work(NamedTuple):
    """What all runs of a table share."""

    paper: str
    runs: dict[tuple[str, int], Run]
    data: Data
    config: Any
    options: Any
    left: TimeLeft

    def parents(self, run: Run) -> dict[str, Run]:
        """The runs that a run starts from or combines, by the names of their rows."""
        return {name: self.runs[name, run.seed] for name in plan.parents(run.row)}


def train(paper: str, rows: Callable, data: Data, config, options) -> list[Run]:
    """Every wanted row of a script with every seed: trained, found finished, or failed."""
    folder = paper_folder(paper, options, data)
    if not options.only_train:  # whose driver has written it
        _save_split(data, folder)
    table = search.table(rows, config, data, options)
    _choose_threads(table)
    runs = plan.make(folder, wanted(table, options.rows), data, config, options)
    try:
        due = _due(runs, options)
        left = TimeLeft(sum(run.row.fit.epochs for run in due if isinstance(run.row, Row)))
        by_name = {(run.row.name, run.seed): run for run in runs}
        work = Work(paper, by_name, data, config, options, left)
        if options.only_train:
            _train_only(work, options.only_train)
        elif options.on == "ray":
            _agree_on_shuffling(work, due)
            spread.train_all(paper, due, lambda run: work.parents(run).values(), options, left)
            _wait_for_files(work, due)
        else:
            _train_all(work, due)
    finally:
        plan.release_claims(runs)
    return [run for run in runs if not isinstance(run.row, Candidate)]


def paper_folder(paper: str, options, data: Data) -> Path:
    """results/PAPER/DATASET; phantoms never share a folder with real images."""
    return options.results_dir / paper / (data.dataset + "-phantoms" * data.phantom)


def _choose_threads(table: Sequence) -> None:
    """One thread for small networks, which then give the same numbers on any number of cores.

    TensorFlow's sums on a processor depend on the number of its threads. It reads this variable
    when it first computes.
    """
    names = [row.network.get("backbone") for row in table if isinstance(row, Row)]
    if names and all(name and backbones.find(name).parameters < SMALL for name in names):
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def finish(runs: Sequence[Run]) -> None:
    """Seal the tables, which are written by now; name the rows that failed, and exit with 1."""
    folder = runs[0].folder.parents[1]
    kinds = (".csv", ".md", ".svg", ".png", ".gz")
    written = [
        path
        for place in (folder, *(run.folder for run in runs if run.finished))
        for path in place.iterdir()
        if path.suffix in kinds and path.name[0] != "."  # other processes' unfinished files
    ]
    safefiles.seal(folder, written)
    failed = plan.failures(runs)
    if not failed:
        return
    print(f"\n{len(failed)} of {len(runs)} runs failed:", file=sys.stderr)
    for run in runs:
        if run.folder in failed:
            print(f"  {run.name}: {failed[run.folder]}", file=sys.stderr)
    print("The same command with --retry-failed tries them again.", file=sys.stderr)
    raise SystemExit(1)


def _save_split(data: Data, folder: Path) -> None:
    """Keep the split beside the results, which --split-file runs on again, and sex, age, view."""
    digest, path = data.facts["identity"]["split"], folder / "split.csv.gz"
    if path.exists() and splits.digest_of(path) != digest:  # other results here have another split
        path = folder / f"split-{digest[:12]}.csv.gz"
    if not path.exists():
        splits.save(data.frame, path)
    attributes.save(data.frame, folder)


def _due(runs: Sequence[Run], options) -> list[Run]:
    """The runs that have to be trained or combined."""
    if options.retry_failed and not options.only_train:
        for run in runs:
            (run.folder / state.FAILED).unlink(missing_ok=True)
    failed = plan.failures(runs)
    rest = [run for run in runs if run.folder not in failed]
    due = [run for run in rest if not state.usable_predictions(run)]
    if len(due) < len(rest):
        print(f"{len(rest) - len(due)} of {len(runs)} runs are finished and stay.", flush=True)
    for run in runs:
        if run.folder in failed:
            reason = failed[run.folder]
            print(f"{run.name} failed before ({reason}); --retry-failed tries again.", flush=True)
    return due


def _train_all(work: Work, due: list[Run]) -> None:
    """Every run that is due, by this process or by another that holds it."""
    waiting = False
    while due:
        held = [run for run in due if not _settle(work, run)]
        if len(held) == len(due):
            if not waiting:
                print(f"Waiting for other processes to finish {held[0].name} ...", flush=True)
            waiting = True
            time.sleep(PAUSE)
        due = held


def _train_only(work: Work, digest: str) -> None:
    """Train the one run that a driver asks for, whose parents are finished; then exit."""
    run = next((run for run in work.runs.values() if run.digest == digest), None)
    if run is None:
        raise RunError(
            f"{platform.node()} finds other images, labels or settings than the host where the "
            "command was given: see that the suite, --data-dir and --weights are the same there."
        )
    began = time.monotonic()
    while lacking := _unfinished_parents(work, run):
        if time.monotonic() - began > LATE:
            raise RunError(f"{platform.node()} does not see {lacking[0]}, which {run.name} needs.")
        time.sleep(PAUSE)
    _train_all(work, [run])
    raise SystemExit(0 if run.finished else worker.RECORDED)


def _wait_for_files(work: Work, due: Sequence[Run]) -> None:
    """Wait until what other hosts have written is seen here; a RunError if that takes too long."""
    began = time.monotonic()
    while True:
        failed = plan.failures(list(work.runs.values()))
        unseen = [run for run in due if not run.finished and run.folder not in failed]
        if not unseen:
            return
        if time.monotonic() - began > LATE:
            raise RunError(
                f"{platform.node()} does not see the results of {unseen[0].name}, which has ended: "
                "put --results-dir on a file system that all hosts share, and run this again."
            )
        time.sleep(PAUSE)


def _agree_on_shuffling(work: Work, due: Sequence[Run]) -> None:
    """Record how all rows shuffle, which hangs on a host's memory, before hosts train them."""
    due = [run for run in due if isinstance(run.row, Row)]
    if not due:
        return
    chunk = _chunk_of_table(work)
    if chunk is None:
        chunk = chunk_images(plan.data_of(due[0].row, work.data).pixels)
    for run in due:
        with safefiles.lock(run.folder / ".lock") as held:
            record = state.readable_record(run.folder) if held else None
            if record is not None and record.get("chunk") is None:
                state.write_record(run.folder, record | {"chunk": chunk})


def _settle(work: Work, run: Run) -> bool:
    """Train or combine a run, unless it is done; False if another process has to end first."""
    failed = plan.failures(list(work.runs.values()))
    if run.finished or run.folder in failed:
        return True
    if _unfinished_parents(work, run):
        return False
    with safefiles.lock(run.folder / ".lock") as held:
        if not held:
            return False
        if not run.finished and not state.failure(run):
            safefiles.remove_parts(run.folder)
            try:
                _make(work, run)
            except state.RowFailed as failure:
                state.record_failure(run, failure)
                state.say(run, f"failed: {failure}")
    return True


def _unfinished_parents(work: Work, run: Run) -> list[str]:
    """The rows that a run has to wait for; a search does without its values that failed."""
    failed = plan.failures(list(work.runs.values())) if isinstance(run.row, Chosen) else {}
    return [
        name
        for name, parent in work.parents(run).items()
        if not parent.finished and parent.folder not in failed
    ]


def _make(work: Work, run: Run) -> None:
    """A run's predictions, from its images or from other runs'."""
    own = plan.data_of(run.row, work.data)
    made_from = work.parents(run)
    recipe = _recipe(work, run, own)
    if isinstance(run.row, Combined):
        state.begin(run, own, "", recipe)
        parts = list(made_from.values())
        if isinstance(run.row, Chosen):
            _choose(run, parts)
        else:
            _combine(run, parts)
        return
    weights = state.weights_of(made_from[run.row.start_from].folder) if made_from else None
    compiled = work.options.cache_dir / "compiled"
    options = work.options
    device = backend.start(
        options.device, options.deterministic, compiled, devices=options.devices_per_row
    )
    from reproduce.engine import fit  # imports the backend

    record = state.begin(run, own, device, recipe, _chunk_of_table(work))
    config = config_of(run.row, work.config)
    try:
        fit.train(run, weights, own, config, work.options, record=record, left=work.left)
    except fit.MAY_BE_MEMORY as error:
        if not backend.is_out_of_memory(error):
            raise
        advice = "Lower --batch-size or --size, or free memory, and give --retry-failed."
        raise state.RowFailed("out of memory", advice) from error
    finally:
        state.end_session(run.folder)


def _chunk_of_table(work: Work) -> int | None:
    """How the rows before this one were shuffled, on whatever machine; None for the first."""
    records = (state.readable_record(run.folder) or {} for run in work.runs.values())
    return next((each["chunk"] for each in records if each.get("chunk") is not None), None)


def _recipe(work: Work, run: Run, data: Data) -> dict:
    """What is needed to call the script's `rows` again, without the dataset."""
    made_from = work.parents(run)
    return {
        "script": f"reproduce.{work.paper}",
        "config": dataclasses.asdict(config_of(run.row, work.config)),
        "row": run.row.candidate_of if isinstance(run.row, Candidate) else run.row.name,
        "options": json.loads(json.dumps(vars(work.options), default=str)),
        "columns": list(data.frame.columns),
        "resized": data.resized,
        "parts": {name: os.path.relpath(at.folder, run.folder) for name, at in made_from.items()},
    }


def _combine(run: Run[Combined], parts: Sequence[Run]) -> None:
    """The row's probabilities of every set that all its parts have predicted."""
    names = [{path.name for path in state.all_predictions(part.folder)} for part in parts]
    for name in sorted(set.intersection(*names), key=lambda name: name == state.FINISHED):
        members = [state.load_predictions(part.folder, part.digest, name) for part in parts]
        made_from = {"row": run.row.name, "run": run.digest, "of": list(run.row.of)}
        predictions.save(
            run.folder / name,
            members[0]._replace(
                probabilities=run.row.combine(*members), meta=members[0].meta | made_from
            ),
        )


def _choose(run: Run[Chosen], candidates: Sequence[Run]) -> None:
    """Copy the finished candidate whose best epoch scored highest on validation."""
    values, scores, texts = run.row.values, [], []
    for value, candidate in zip(values, candidates, strict=True):
        by_epoch = state.history(candidate.folder).get("val", np.array([math.nan]))
        scores.append(float(by_epoch.max()) if candidate.finished else math.nan)
        texts.append(f"{value}: {scores[-1]:.4f}" if candidate.finished else f"{value}: failed")
    if np.isnan(scores).all():
        reason = f"no value of {len(values)} has a validation score"
        raise state.RowFailed(reason, f"Give --search other values ({', '.join(texts)}).")
    best = int(np.nanargmax(scores))
    chosen = candidates[best]
    note = f"{values[best]}, chosen on validation of {len(values)} ({', '.join(texts)})"
    weights, record = state.weights_of(chosen.folder), state.record(chosen.folder) or {}
    with safefiles.whole(run.folder / state.WEIGHTS) as path:
        shutil.copyfile(weights, path)
    safefiles.write(run.folder / "history.csv", (chosen.folder / "history.csv").read_bytes())
    kept = {name: record[name] for name in ("weights", "recipe", "template")}
    state.add_to_record(run.folder, chosen=note, **kept)
    if kept["template"]:
        safefiles.write(run.folder / "template.npz", (chosen.folder / "template.npz").read_bytes())
    for path in state.all_predictions(chosen.folder):  # predictions.npz last: it means finished
        found = state.load_predictions(chosen.folder, chosen.digest, path.name)
        meta = found.meta | {"row": run.row.name, "run": run.digest}
        predictions.save(run.folder / path.name, found._replace(meta=meta))
    state.say(run, note)
