"""The training of a table, from top to bottom: which rows are due, then one row epoch by epoch.

    train_table  plans the runs of a table, trains those that are due, and returns all of them
    train_due    locks, trains and releases one run after another
    make         combines a row from others, or starts the backend and trains it
    train_row    the loop over epochs, then the predictions

Several processes on one results folder share the work: a process that finds a run locked takes the
next one. A row that fails is recorded, and the others continue. An epoch is a function of the state
after the epoch before it, the seed and its number, so an interrupted run repeats it exactly.
TensorFlow is not imported until a row has to be trained.
"""

import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import safefiles
from data import splits
from data.cache import chunk_images
from evaluation import metrics, predictions
from models import backbones, inference
from reproduce import RunError, __version__
from reproduce.engine import attributes, backend, runs, search
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Data, Row, Run, parents
from reproduce.engine.time_left import TimeLeft

PAUSE = 2  # seconds between two looks at runs that other processes have locked
LATE = 120  # seconds until a shared file system must show what another host has finished
SMALL = 1_000_000  # parameters of a network that gains nothing from a second thread


@dataclass
class Job:
    """The runs of one table, and what they share."""

    paper: str
    runs: dict[tuple[str, int], Run[Any]]  # by row and seed, parents first
    config: Any
    data: Data
    options: Options
    left: TimeLeft

    def parents(self, run: Run[Any]) -> dict[str, Run[Any]]:
        """Return the runs that a run starts from or combines, by the names of their rows."""
        return {name: self.runs[name, run.seed] for name in parents(run.row)}

    def parents_of(self, run: Run[Any]) -> list[Run[Any]]:
        """Return the runs that a run starts from or combines."""
        return list(self.parents(run).values())

    def failures(self) -> dict[Path, str]:
        """Return why runs have failed, by folder."""
        return runs.failures(list(self.runs.values()))

    def missing_parents(self, run: Run[Any]) -> list[str]:
        """Return the rows that a run has to wait for; a search does without failed values."""
        failed = self.failures() if isinstance(run.row, search.Chosen) else {}
        return [
            name
            for name, parent in self.parents(run).items()
            if not parent.finished and parent.folder not in failed
        ]


# ---------------------------------------------------------------- the table: which rows are due


def train_table(
    paper: str, table: Sequence[Row | Combined], config: Any, data: Data, options: Options
) -> list[Run[Any]]:
    """Train every row of a table with every seed; return the runs, finished or failed."""
    folder = runs.paper_folder(paper, options, data)
    if not options.only_train:  # the command that started this task has saved it
        save_split(data, folder)
    choose_threads(table)
    planned = runs.plan(folder, table, data, options)
    due = runs_due(planned, options)
    epochs = sum(run.row.fit.epochs for run in due if isinstance(run.row, Row))
    by_name = {(run.row.name, run.seed): run for run in planned}
    job = Job(paper, by_name, config, data, options, TimeLeft(epochs))
    if options.only_train:
        train_only(job, options.only_train)
    elif options.on == "ray":
        from reproduce.engine.cluster import tasks

        record_chunks(job, due)
        tasks.train_all(paper, due, job.parents_of, options, job.left)
        wait_for_files(job, due)
    else:
        train_due(job, due)
    return [run for run in planned if not isinstance(run.row, search.Candidate)]


def save_split(data: Data, folder: Path) -> None:
    """Write the split, which --split-file can use again, and the sex, age and view of images."""
    digest, path = data.facts["identity"]["split"], folder / "split.csv.gz"
    if path.exists() and splits.digest_of(path) != digest:  # other results here have another split
        path = folder / f"split-{digest[:12]}.csv.gz"
    if not path.exists():
        splits.save(data.frame, path)
    attributes.save(data.frame, folder)


def choose_threads(table: Sequence[Row | Combined]) -> None:
    """Use one thread if all networks are small, for the same numbers on any number of cores.

    TensorFlow's sums on a processor depend on the number of its threads. It reads this variable
    when it first computes.
    """
    names = [row.network.backbone for row in table if isinstance(row, Row)]
    if names and all(backbones.find(name).parameters < SMALL for name in names):
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def runs_due(planned: Sequence[Run[Any]], options: Options) -> list[Run[Any]]:
    """Return the runs that have to be trained or combined; print which are finished or failed."""
    if options.retry_failed and not options.only_train:
        for run in planned:
            (run.folder / runs.FAILED).unlink(missing_ok=True)
    failed = runs.failures(planned)
    rest = [run for run in planned if run.folder not in failed]
    due = [run for run in rest if not runs.usable_predictions(run)]
    if len(due) < len(rest):
        print(f"{len(rest) - len(due)} of {len(planned)} runs are finished and stay.", flush=True)
    for run in planned:
        if run.folder in failed:
            reason = failed[run.folder]
            print(f"{run.name} failed before ({reason}); --retry-failed tries again.", flush=True)
    return due


def train_due(job: Job, due: Sequence[Run[Any]]) -> None:
    """Train every run that is due, or wait until another process that locked it has ended."""
    waiting = False
    while due:
        locked = [run for run in due if not settle(job, run)]
        if len(locked) == len(due):
            if not waiting:
                print(f"Waiting for other processes to finish {locked[0].name} ...", flush=True)
            waiting = True
            time.sleep(PAUSE)
        due = locked


def settle(job: Job, run: Run[Any]) -> bool:
    """Train or combine a run unless it is done; return False if another process must end first."""
    if run.finished or run.folder in job.failures():
        return True
    if job.missing_parents(run):
        return False
    with safefiles.lock(run.folder / ".lock") as held:
        if not held:
            return False
        if not run.finished and not runs.failure(run):
            safefiles.remove_parts(run.folder)
            try:
                make(job, run)
            except runs.RowFailed as failure:
                runs.record_failure(run, failure)
                runs.say(run, f"failed: {failure}")
    return True


def make(job: Job, run: Run[Any]) -> None:
    """Write a run's predictions, from its images or from other runs' predictions."""
    data, options = job.data.seen_by(run.row), job.options
    made_from = job.parents(run)
    script = runs.script_of(job.paper, run, job.config, options)
    script["parts"] = {
        name: os.path.relpath(parent.folder, run.folder) for name, parent in made_from.items()
    }
    if isinstance(run.row, Combined):
        runs.begin(run, data, "", script)
        if isinstance(run.row, search.Chosen):
            choose(run, list(made_from.values()))
        else:
            combine(run, list(made_from.values()))
        return
    weights = runs.weights_of(made_from[run.row.start_from].folder) if made_from else None
    device = backend.start(
        options.device,
        options.deterministic,
        options.cache_dir / "compiled",
        devices=options.devices_per_row,
    )
    runs.begin(run, data, device, script, chunk_of_table(job))
    try:
        with backend.devices_of_row(options.devices_per_row):
            train_row(run, weights, data, options, job.left)
    except backend.memory_errors() as error:
        if not backend.is_out_of_memory(error):
            raise
        advice = "Lower --batch-size or --size, or free memory, and give --retry-failed."
        raise runs.RowFailed("out of memory", advice) from error
    finally:
        runs.end_session(run.folder)


# ---------------------------------------------------------------- one row, epoch by epoch


def train_row(
    run: Run[Row], weights: Path | None, data: Data, options: Options, left: TimeLeft
) -> None:
    """Train a row to its last epoch, from where it is, and predict all other sets."""
    import keras

    from reproduce.engine import callbacks, features, networks

    row, fit = run.row, run.row.fit
    seed = run.seed + fit.reseed
    targets = data.targets(row.task)
    # training images without any known target are dropped
    train_set = np.flatnonzero(data.of_set("train") & ~np.isnan(targets.learnt).all(axis=1))
    if not len(train_set):
        advice = "Give more images, or leave this row out with --rows."
        raise runs.RowFailed("no training image has a known label", advice)
    val_set = data.of_set("val")

    keras.utils.set_random_seed(seed)
    model = networks.build(row, options.fast)
    loss = row.loss(targets.learnt[data.of_set("train")])
    networks.compile_for(model, fit, weights, loss, options)
    learner, inputs = model, None  # what is trained, on which arrays; None: on the images
    if fit.features_once:
        trunk, learner = features.split(model)
        inputs = features.compute(run, trunk, data, options)
    runs.save_loss(run, type(loss).__name__, loss.get_config())
    record = runs.record(run.folder) or {}
    trained = runs.is_trained(run, record)
    history, best = ([], {}) if trained else networks.resume(model, run)
    left.skip(len(history))
    chunk = images_in_chunk(run, data, record)
    backend.check_devices(options.devices_per_row, min(fit.batch_size, len(train_set)))

    for epoch in range(len(history), 0 if trained else fit.epochs):
        if fit.stop(history):  # early stopping
            left.skip(fit.epochs - epoch)
            break
        started = time.perf_counter()
        rate = fit.learning_rate(epoch, history)
        model.optimizer.learning_rate = rate
        batches, images_of = epoch_batches(
            run, epoch, data, targets.learnt, train_set, chunk, inputs
        )
        fitted = learner.fit(
            batches,
            shuffle=False,  # the pipeline shuffles, repeatably
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[
                callbacks.ProgressBar(run, epoch, learner),
                callbacks.StopOnNaN(run, epoch, rate, images_of, learner),
            ],
        )
        logits = predict(learner, run, data, "val", inference.single_pass, inputs)[0]
        if not np.isfinite(logits).all():  # after the last step, whose loss was still finite
            raise callbacks.not_finite(run, "NaN", epoch, rate, images_of(len(batches) - 1))
        val_loss = float(keras.ops.mean(model.loss(targets.learnt[val_set], logits)))
        if np.isnan(targets.learnt[val_set]).all():
            val_loss = math.nan  # nothing to choose an epoch by: the last one is kept
        probabilities = row.readout.probabilities(logits)
        score = float(fit.select(targets.truth[val_set], probabilities, val_loss))
        seconds = time.perf_counter() - started
        if not any(line["val"] >= score for line in history):  # also where no score is defined
            best = runs.save_weights(run, model.save_weights, networks.size(model), epoch + 1)
        train_loss = float(fitted.history["loss"][0])
        line = {"epoch": epoch + 1, "learning_rate": rate, "loss": train_loss, "val_loss": val_loss}
        history.append(line | {"val": score, "seconds": round(seconds, 1)})
        runs.save_epoch(run, networks.arrays(model), history, best)
        progress = f"epoch {epoch + 1}/{fit.epochs}  loss {train_loss:.4f}  val {score:.4f}"
        runs.say(run, f"{progress}  {seconds:.0f} s, {left.after(seconds)}")

    if best:
        runs.keep_best(run, best)
    if fit.epochs:
        model.load_weights(runs.weights_of(run.folder))
    for name in sorted({*data.frame["split"]} - {"train"}, key=lambda name: name == "test"):
        write_predictions(learner, run, data, name, inputs)  # test last: it means finished
    (run.folder / runs.STATE).unlink(missing_ok=True)


def epoch_batches(
    run: Run[Row],
    epoch: int,
    data: Data,
    learnt: np.ndarray,
    train_set: np.ndarray,
    chunk: int,
    inputs: np.ndarray | None,
) -> tuple[Any, Callable[..., pd.Series]]:
    """Return the training batches of an epoch, and a function that names a batch's images.

    Without `inputs`, an array with a row per image, the batches are of images. The function
    returns the images of a batch, or of the `count` batches up to it.
    """
    from data import pipeline
    from reproduce.engine import features

    fit, seed = run.row.fit, run.seed + run.row.fit.reseed
    images = data.frame["image_path"].iloc[train_set]
    indices = data.pixels.indices(images)
    if inputs is not None:
        shown = train_set[pipeline.epoch_order(indices, seed, epoch, chunk).shown]
        shown = shown[: len(shown) // fit.batch_size * fit.batch_size or None]
        batches = features.Batches(inputs[shown], learnt[shown], min(fit.batch_size, len(shown)))
    else:
        batches = pipeline.train_batches(
            data.pixels,
            indices,
            learnt[train_set],
            batch_size=fit.batch_size,
            seed=seed,
            epoch=epoch,
            augment=fit.augment,
            crop=run.row.network.size,
            chunk=chunk,
        )

    def images_of(batch: int, count: int = 1) -> pd.Series:
        order = pipeline.epoch_order(indices, seed, epoch, chunk)[0]
        size = min(fit.batch_size, len(order))
        first = max(0, batch + 1 - count)
        return images.iloc[order[first * size : min(batch + 1, len(batches)) * size]]

    return batches, images_of


def predict(
    model: Any,
    run: Run[Row],
    data: Data,
    name: str,
    passes: Callable[..., np.ndarray],
    inputs: np.ndarray | None = None,
) -> np.ndarray:
    """Return (passes, images, outputs): the logits of a set's images, or of their `inputs`."""
    from data import pipeline
    from reproduce.engine import features

    row = run.row
    if inputs is not None:
        in_set = features.Batches(inputs[data.of_set(name)], None, row.fit.batch_size)
        return passes(model, lambda: in_set, row.fit.batch_size)
    indices = data.pixels.indices(data.frame["image_path"][data.of_set(name)])

    def batches(**draw: Any) -> Any:
        return pipeline.ordered_batches(
            data.pixels,
            indices,
            batch_size=row.fit.batch_size,
            crop=row.network.size,
            seed=run.seed + row.fit.reseed,
            **draw,
        )

    return passes(model, batches, row.fit.batch_size)


def write_predictions(
    model: Any, run: Run[Row], data: Data, name: str, inputs: np.ndarray | None = None
) -> None:
    """Write the row's probabilities of the validation set or a test set."""
    row, in_set = run.row, data.of_set(name)
    passes = predict(model, run, data, name, row.readout.passes, inputs)
    probabilities = np.stack([row.readout.probabilities(logits) for logits in passes])
    if metrics.collapsed(probabilities):
        runs.say(run, f"collapsed: (nearly) the same probabilities for every image of {name}")
    about = {
        "row": row.name,
        "seed": run.seed + row.fit.reseed,
        "run": run.digest,
        "dataset": data.dataset,
        "set": name,
    }
    predicted = predictions.Predictions(
        ids=data.frame["image_path"][in_set].to_numpy(),
        patients=data.frame["patient_id"][in_set].to_numpy(),
        labels=np.asarray(row.task.labels),
        targets=data.targets(row.task).truth[in_set],
        probabilities=probabilities,
        meta=about,
    )
    predictions.save(run.folder / runs.file_of(name), predicted)


# ---------------------------------------------------------------- rows made from other rows


def combine(run: Run[Combined], parts: Sequence[Run[Any]]) -> None:
    """Write the combined probabilities of every set that all parts have predicted."""
    names = [{path.name for path in runs.all_predictions(part.folder)} for part in parts]
    for name in sorted(set.intersection(*names), key=lambda name: name == runs.FINISHED):
        members = [runs.load_predictions(part.folder, part.digest, name) for part in parts]
        about = {"row": run.row.name, "run": run.digest, "of": list(run.row.of)}
        combined = members[0]._replace(
            probabilities=run.row.combine(*members), meta=members[0].meta | about
        )
        predictions.save(run.folder / name, combined)


def choose(run: Run[search.Chosen], candidates: Sequence[Run[Any]]) -> None:
    """Copy the finished candidate whose best epoch scored highest on validation."""
    values, scores, texts = run.row.values, [], []
    for value, candidate in zip(values, candidates, strict=True):
        by_epoch = runs.history(candidate.folder).get("val", np.array([math.nan]))
        scores.append(float(by_epoch.max()) if candidate.finished else math.nan)
        texts.append(f"{value}: {scores[-1]:.4f}" if candidate.finished else f"{value}: failed")
    if np.isnan(scores).all():
        reason = f"no value of {len(values)} has a validation score"
        raise runs.RowFailed(reason, f"Give --search other values ({', '.join(texts)}).")
    best = int(np.nanargmax(scores))
    source = candidates[best].folder
    note = f"{values[best]}, chosen on validation of {len(values)} ({', '.join(texts)})"
    with safefiles.whole(run.folder / runs.WEIGHTS) as path:
        shutil.copyfile(runs.weights_of(source), path)
    safefiles.write(run.folder / "history.csv", (source / "history.csv").read_bytes())
    record = runs.record(source) or {}
    copied = {name: record[name] for name in ("weights", "template", "config", "row", "parts")}
    runs.add_to_record(run.folder, chosen=note, **copied)
    if record["template"]:
        safefiles.write(run.folder / "template.npz", (source / "template.npz").read_bytes())
    for path in runs.all_predictions(source):  # predictions.npz last: it means finished
        loaded = runs.load_predictions(source, candidates[best].digest, path.name)
        about = loaded.meta | {"row": run.row.name, "run": run.digest}
        predictions.save(run.folder / path.name, loaded._replace(meta=about))
    runs.say(run, note)


# ---------------------------------------------------------------- agreement between hosts


def images_in_chunk(run: Run[Row], data: Data, record: dict[str, Any]) -> int:
    """Return how many images are shuffled together; a resumed run keeps what it began with."""
    chunk = record.get("chunk")
    if chunk is None:
        chunk = chunk_images(data.pixels)
        runs.add_to_record(run.folder, chunk=chunk)
    return int(chunk)


def chunk_of_table(job: Job) -> int | None:
    """Return how earlier rows of the table were shuffled, on whatever machine; None if none was."""
    records = (runs.readable_record(run.folder) or {} for run in job.runs.values())
    return next((each["chunk"] for each in records if each.get("chunk") is not None), None)


def record_chunks(job: Job, due: Sequence[Run[Any]]) -> None:
    """Record how all rows shuffle, which depends on a host's memory, before hosts train them."""
    rows = [run for run in due if isinstance(run.row, Row)]
    if not rows:
        return
    chunk = chunk_of_table(job) or chunk_images(job.data.seen_by(rows[0].row).pixels)
    for run in rows:
        with safefiles.lock(run.folder / ".lock") as held:
            record = runs.readable_record(run.folder) or {
                "version": __version__,
                "settings": run.settings,
                "digest": run.digest,
            }
            if held and record.get("chunk") is None:
                runs.write_record(run.folder, record | {"chunk": chunk})


def train_only(job: Job, digest: str) -> None:
    """Train the one run that a Ray task names, whose parents are finished; then exit."""
    run = next((run for run in job.runs.values() if run.digest == digest), None)
    if run is None:
        raise RunError(
            f"{platform.node()} finds other images, labels or settings than the host where the "
            "command was given: check that the suite, --data-dir and --weights are the same there."
        )
    began = time.monotonic()
    while missing := job.missing_parents(run):
        if time.monotonic() - began > LATE:
            raise RunError(f"{platform.node()} does not see {missing[0]}, which {run.name} needs.")
        time.sleep(PAUSE)
    train_due(job, [run])
    raise SystemExit(0 if run.finished else runs.RECORDED)


def wait_for_files(job: Job, due: Sequence[Run[Any]]) -> None:
    """Wait until the files of other hosts are visible here; raise if that takes too long."""
    began = time.monotonic()
    while True:
        failed = job.failures()
        unseen = [run for run in due if not run.finished and run.folder not in failed]
        if not unseen:
            return
        if time.monotonic() - began > LATE:
            raise RunError(
                f"{platform.node()} does not see the results of {unseen[0].name}, which has ended: "
                "put --results-dir on a file system that all hosts share, and run this again."
            )
        time.sleep(PAUSE)
