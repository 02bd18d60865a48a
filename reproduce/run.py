"""What every paper's script shares: its data, its run folders and the loop over its rows.

A paper is a Config, its rows and `main()`. A row is one line of a published table: a trained
network, which may start from another row's weights, or a combination of other rows' predictions.

    results/chen2019/plco/HLCP/seed-0/    config.json, history.csv, best.weights.h5,
                                          predictions.npz, metrics.csv, log.txt

A row that has predictions for the same settings is not trained again; other settings go to a
folder of their own. Nothing here imports TensorFlow until a row has to be trained.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import DataError, chestxray14, chexpert, phantom, plco, prepare, splits
from data.augment import AS_STORED, Augment
from data.cache import Cache
from evaluation import predict
from reproduce import RunError
from reproduce.flags import ROOT

READERS = {"chestxray14": chestxray14, "chexpert": chexpert, "plco": plco}
PHANTOMS = "drawn phantoms"
PACKAGES = ("tensorflow", "keras", "jax", "torch", "numpy", "opencv-python-headless", "pandas")


@dataclasses.dataclass(frozen=True)
class Row:
    """One trained network: what it predicts, from what, by which loss and schedule."""

    name: str
    labels: Sequence[str]
    targets: np.ndarray  # (images, labels) of all images to learn from, in [0, 1] or NaN
    truth: np.ndarray  # (images, labels) of all images to be scored against, 0, 1 or NaN
    loss: Callable  # () -> a Keras loss on logits
    select: Callable  # (truth, probabilities, loss) of validation -> the best epoch has the most
    epochs: int  # 0: the weights it starts from, read in another way
    learning_rate: Callable  # (epoch, history of the epochs before) -> rate
    augment: Augment = AS_STORED  # what training draws; a crop to Config's size comes before it
    probabilities: Callable = predict.sigmoid  # logits -> probabilities of `labels`
    passes: Callable = predict.once  # how the test set is read: once, or in several draws
    model: Callable | None = None  # () -> network with linear logits; None: Config's backbone
    stop: Callable = lambda history: False  # whether training ends early
    start_from: str = ""  # the row whose best weights it starts from
    settings: dict = dataclasses.field(default_factory=dict)  # what Config does not say of it
    unused: Sequence[str] = ()  # fields of Config that do not touch it
    reseed: int = 0  # added to the run's seed: the same network, drawn and shuffled anew
    note: str = ""  # stands under the tables


@dataclasses.dataclass(frozen=True)
class Combined:
    """A row computed from the predictions of others: an ensemble, a fusion, another reading."""

    name: str
    of: Sequence[str]
    combine: Callable  # (Predictions of each) -> probabilities (members, images, labels)
    note: str = ""


class Data(NamedTuple):
    """The images that a script runs on, decoded once."""

    frame: pd.DataFrame  # image_path, patient_id, split, labels as released
    cache: Cache
    facts: dict  # what the runs record of it
    not_comparable: str | None  # why no published number can be held against the results


def read(options, config, phantoms: int) -> pd.DataFrame:
    """The dataset's frame, as released; phantoms of it where no folder is given."""
    folder = options.data_dir
    if folder is None:
        images, size = options.phantoms or phantoms, max(config.size, 128)
        print(
            f"No --data-dir: drawing {images:,} phantoms in {options.dataset}'s layout. They show "
            "that everything runs; their numbers compare with nothing published.",
            flush=True,
        )
        place = options.cache_dir / "phantoms" / f"{options.dataset}-{images}-{size}px"
        folder = phantom.write(options.dataset, place, images, size, seed=0, prevalence_floor=0.03)
    frame = READERS[options.dataset].read(folder, allow_missing=options.allow_missing)
    frame.attrs["folder"] = str(Path(folder).expanduser().absolute())
    return frame


def decode(options, frame: pd.DataFrame, attrs: dict, size: int) -> Data:
    """Every image of a split frame decoded once; says why the results compare with nothing."""
    folder = prepare.prepare(
        attrs["folder"],
        frame["image_path"],
        options.cache_dir / "images",
        size,
        skip_corrupt=options.skip_corrupt,
    )
    cache = Cache(folder)
    frame = frame[~frame["image_path"].isin(cache.skipped)].reset_index(drop=True)
    sets = frame["split"].value_counts().to_dict()
    if lacking := [name for name in splits.NAMES if name not in sets]:
        raise DataError(f"No images are left for {', '.join(lacking)}; give a fuller dataset.")
    table = frame.drop(columns="view").to_csv(index=False)
    facts = {
        "dataset": attrs["dataset"],
        "phantom": attrs["phantom"],
        "label_files": attrs["label_files"],
        "sets": {name: sets[name] for name in splits.NAMES},
        "labels_and_split": hashlib.sha256(table.encode()).hexdigest(),
        "missing": len(attrs["missing"]),
        "corrupt": len(cache.skipped),
        "images": cache.fingerprint,
    }
    reason = None
    if attrs["phantom"]:
        reason = PHANTOMS
    elif not attrs["complete"] or cache.skipped:
        reason = f"subset of {len(frame):,} images"
    return Data(frame, cache, facts, reason)


def paper_folder(paper: str, options, data: Data) -> Path:
    """results/PAPER/DATASET; phantoms never share a folder with real images."""
    return (
        options.results_dir
        / paper
        / (options.dataset + "-phantoms" * (data.not_comparable == PHANTOMS))
    )


class Run(NamedTuple):
    """A row with one seed, and the folder that is or will be its own."""

    row: Row | Combined
    seed: int
    folder: Path
    settings: dict

    @property
    def finished(self) -> bool:
        return (self.folder / "predictions.npz").exists()


def train(paper: str, rows: Sequence[Row | Combined], data: Data, config, options) -> list[Run]:
    """Every wanted row with every seed, trained or found finished."""
    plan = _plan(
        paper_folder(paper, options, data), _wanted(rows, options.rows), data, config, options.seeds
    )
    ahead = [run for run in plan if not run.finished]
    if len(ahead) < len(plan):
        print(f"{len(plan) - len(ahead)} of {len(plan)} runs are finished and stay.", flush=True)
    clock = Clock(sum(run.row.epochs for run in ahead if isinstance(run.row, Row)))
    folders = {(run.row.name, run.seed): run.folder for run in plan}
    for run in ahead:
        if isinstance(run.row, Combined):
            _begin(run, data)
            _combine(run, [folders[name, run.seed] for name in run.row.of])
            continue
        if options.device == "cpu":
            os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        with _quiet():
            from reproduce import training  # imports TensorFlow

            device = training.set_up(options.device)
        _begin(run, data, device)
        start = run.row.start_from
        weights = folders[start, run.seed] / "best.weights.h5" if start else None
        reseeded = run._replace(seed=run.seed + run.row.reseed)
        training.train(reseeded, weights, data, config, options, clock)
    return plan


@contextlib.contextmanager
def _quiet():
    """Hold back what a backend's libraries write while they start, unless it fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _wanted(rows: Sequence[Row | Combined], names: Sequence[str] | None) -> list[Row | Combined]:
    """The rows asked for and those they start from or combine, in the script's order."""
    by_name = {row.name: row for row in rows}
    if not names:
        return list(rows)
    asked, needed = [name.strip() for text in names for name in text.split(",")], set()
    while asked:
        if (name := asked.pop()) not in by_name:
            raise RunError(f"There is no row {name!r}; the rows are {', '.join(by_name)}.")
        needed.add(name)
        asked += _parents(by_name[name])
    return [row for row in rows if row.name in needed]


def _parents(row: Row | Combined) -> list[str]:
    if isinstance(row, Combined):
        return list(row.of)
    return [row.start_from] if row.start_from else []


def _plan(folder: Path, rows, data: Data, config, seeds: Sequence[int]) -> list[Run]:
    """A folder for every row and seed: the one with equal settings, or a new one."""
    plan, digests, notes = [], {}, {}
    for row in rows:
        for seed in seeds:
            settings = {
                "row": row.name,
                "seed": seed + (row.reseed if isinstance(row, Row) else 0),
                "data": data.facts,
                "from": {name: digests[name, seed] for name in _parents(row)},
            }
            if isinstance(row, Row):
                fields = dataclasses.asdict(config).items()
                settings |= {name: value for name, value in fields if name not in row.unused}
                settings |= row.settings
            settings = json.loads(json.dumps(settings))  # as it will be read back
            text = json.dumps(settings, sort_keys=True)
            digests[row.name, seed] = hashlib.sha256(text.encode()).hexdigest()[:12]
            place = folder / re.sub(r"[^\w.+-]+", "-", row.name).strip("-")
            own, changes = _own_folder(place, f"seed-{seed}", settings, digests[row.name, seed])
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


def _own_folder(place: Path, name: str, settings: dict, digest: str) -> tuple[Path, str]:
    """The folder of these settings below `place`, and what differs if others hold the name."""
    plain = place / name
    known = _known_settings(plain)
    if known is None or known == settings:
        return plain, ""
    own = place / f"{name}-{digest}"
    if own.exists():
        return own, ""
    changes = [
        f"{field} changed from {_short(known.get(field))} to {_short(settings.get(field))}"
        for field in {**known, **settings}
        if known.get(field) != settings.get(field)
    ]
    return own, " and ".join(changes)


def _known_settings(folder: Path) -> dict | None:
    path = folder / "config.json"
    return json.loads(path.read_text())["settings"] if path.exists() else None


def _short(value: object) -> str:
    text = "another" if isinstance(value, dict) else str(value)
    return text if len(text) < 40 else text[:37] + "..."


def _begin(run: Run, data: Data, device: str = "") -> None:
    """Make a run's folder and write down what it will be made from, and on what."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        record = {"settings": run.settings, "provenance": provenance(device)}
        write_whole(run.folder / "config.json", json.dumps(record, indent=1))
    except OSError as error:
        raise RunError(
            f"The results cannot be written to {run.folder} ({error.strerror}): "
            "make it writable or give another --results-dir."
        ) from error


def provenance(device: str) -> dict:
    """Versions, commit, host and command of what runs now."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    git = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
    )
    return {
        "versions": versions,
        "commit": git.stdout.strip() or "unknown",
        "host": platform.node(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow") if device else "none",
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _combine(run: Run, folders: Sequence[Path]) -> None:
    """The row's probabilities of every test set that all its parts have."""
    shared = set.intersection(*({path.name for path in test_sets(folder)} for folder in folders))
    for name in sorted(shared, key=len, reverse=True):  # predictions.npz last: it means finished
        parts = [predict.load(folder / name) for folder in folders]
        combined = run.row.combine(*parts)
        meta = parts[0].meta | {"row": run.row.name, "of": list(run.row.of)}
        predict.save(run.folder / name, *parts[0][:4], combined, meta)


def test_sets(folder: Path) -> list[Path]:
    """A run's predictions: of the test set, and of any further set NAME in predictions-NAME.npz."""
    return sorted(folder.glob("predictions*.npz"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside and rename: a reader, or the next run, never sees half a file."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


class Clock:
    """How long the epochs that lie ahead will take, from those that are done."""

    def __init__(self, epochs: int):
        self.ahead, self.done, self.spent = epochs, 0, 0.0

    def skip(self, epochs: int) -> None:
        """These were done before, or are not needed."""
        self.ahead -= epochs

    def epoch_took(self, seconds: float) -> str:
        """Count an epoch; the time left for the whole table."""
        self.ahead, self.done, self.spent = self.ahead - 1, self.done + 1, self.spent + seconds
        left = self.ahead * self.spent / self.done
        if left < 90:
            return f"{left:.0f} s left"
        return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"
