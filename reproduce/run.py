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
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import DataError, chestxray14, chexpert, phantom, plco, prepare, splits, template_crop
from data.augment import AS_STORED, Augment
from data.cache import Cache
from evaluation import metrics, predict
from reproduce import RunError
from reproduce.provenance import provenance

READERS = {"chestxray14": chestxray14, "chexpert": chexpert, "plco": plco}
PHANTOMS = "drawn phantoms"


def mean_auc(truth: np.ndarray, probabilities: np.ndarray, loss: float) -> float:
    """The exact mean AUC over the labels; Keras' metric is of binned scores."""
    return metrics.macro_mean(metrics.auroc(truth, probabilities))


@dataclasses.dataclass(frozen=True)
class Row:
    """One trained network: what it predicts, from what, by which loss and schedule."""

    name: str
    labels: Sequence[str]
    targets: np.ndarray  # (images, labels) of all images to learn from, in [0, 1] or NaN
    truth: np.ndarray  # (images, labels) of all images to be scored against, 0, 1 or NaN
    loss: Callable  # () -> a Keras loss on logits
    epochs: int  # 0: the weights it starts from, read in another way
    learning_rate: Callable  # (epoch, history of the epochs before) -> rate
    select: Callable = mean_auc  # (truth, probabilities, loss) of validation -> most is best
    augment: Augment = AS_STORED  # what training draws; a crop to Config's size comes before it
    probabilities: Callable = predict.sigmoid  # logits -> probabilities of `labels`
    passes: Callable = predict.once  # how the test set is read: once, or in several draws
    network: dict = dataclasses.field(default_factory=dict)  # what differs from Config's network
    build: Callable | None = None  # (**network) -> linear logits; None: models.classifier.build
    stop: Callable = lambda history: False  # whether training ends early
    start_from: str = ""  # the row whose best weights it starts from
    head_only: bool = False  # all layers but the last stay as they started
    data: Callable | None = None  # () -> the Data that it sees, where that is not the script's
    settings: dict = dataclasses.field(default_factory=dict)  # what Config does not say of it
    unused: Sequence[str] = ()  # fields of Config that do not touch it
    reseed: int = 0  # added to the run's seed: the same network, drawn and shuffled anew
    note: str = ""  # stands under the tables


def averaged(*parts: predict.Predictions) -> np.ndarray:
    """Every part a member: (parts, images, labels), of which the mean is the combination."""
    return np.stack([part.mean for part in parts])


@dataclasses.dataclass(frozen=True)
class Combined:
    """A row computed from the predictions of others: an ensemble, a fusion, another reading."""

    name: str
    of: Sequence[str]
    combine: Callable = averaged  # (Predictions of each) -> probabilities (members, images, labels)
    note: str = ""


class Data(NamedTuple):
    """The images that a script runs on, decoded once."""

    frame: pd.DataFrame  # image_path, patient_id, split, labels as released
    cache: Cache
    facts: dict  # what the runs record of it
    not_comparable: str | None  # why no published number can be held against the results
    resized: int = 0  # pixels a side of a decoded image, before a template cuts it
    template: np.ndarray | None = None

    @property
    def phantom(self) -> bool:
        return self.not_comparable == PHANTOMS


def read(options, config, phantoms: int, **which) -> pd.DataFrame:
    """The dataset's frame, as released; phantoms of it where no folder is given.

    `which` goes to the reader: CheXpert's `labels`, for instance.
    """
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
    frame = READERS[options.dataset].read(folder, allow_missing=options.allow_missing, **which)
    frame.attrs["folder"] = str(Path(folder).expanduser().absolute())
    return frame


def decode(options, frame: pd.DataFrame, attrs: dict, size: int, window: int | None = None) -> Data:
    """Every image of a split frame decoded once; says why the results compare with nothing.

    With a `window`, each is cut to that size where it looks most like the mean training image.
    """
    template = _template(options, frame, attrs, size, window) if window else None
    folder = prepare.prepare(
        attrs["folder"],
        frame["image_path"],
        options.cache_dir / "images",
        size,
        template,
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
    return Data(frame, cache, facts, reason, size, template)


def _template(options, frame: pd.DataFrame, attrs: dict, size: int, window: int) -> np.ndarray:
    """The middle of the mean training image, made once for a set of images."""
    paths = frame["image_path"][frame["split"] == "train"].tolist()
    origin = {"folder": attrs["folder"], "size": size, "window": window}
    digest = hashlib.sha256(json.dumps([origin, paths]).encode()).hexdigest()
    path = options.cache_dir / "templates" / f"{window}px-{digest[:12]}.npz"
    if not path.exists():
        # prepare, which reads every image, has the better word on those that cannot be read
        template = template_crop.build(attrs["folder"], paths, size, window, skip_corrupt=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        template_crop.save(path, template, **origin)
    return template_crop.load(path)


def paper_folder(paper: str, options, data: Data) -> Path:
    """results/PAPER/DATASET; phantoms never share a folder with real images."""
    return options.results_dir / paper / (options.dataset + "-phantoms" * data.phantom)


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
        parts = {name: folders[name, run.seed] for name in _parents(run.row)}
        recipe = _recipe(paper, run, parts, data, config, options)
        if isinstance(run.row, Combined):
            _begin(run, data, recipe=recipe)
            _combine(run, list(parts.values()))
            continue
        if options.device == "cpu":
            os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        with quiet():
            from reproduce import training  # imports TensorFlow

            device = training.set_up(options.device)
        own = _data_of(run.row, data)
        _begin(run, own, device, recipe)
        start = run.row.start_from
        weights = parts[start] / "best.weights.h5" if start else None
        reseeded = run._replace(seed=run.seed + run.row.reseed)
        training.train(reseeded, weights, own, config, options, clock)
    return plan


def _data_of(row: Row | Combined, data: Data) -> Data:
    return row.data() if isinstance(row, Row) and row.data else data


@contextlib.contextmanager
def quiet():
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
    given = [[text] if text in by_name else text.split(",") for text in names]  # names may have one
    asked, needed = [name.strip() for texts in given for name in texts], set()
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
                "data": _data_of(row, data).facts,
                "from": {name: digests[name, seed] for name in _parents(row)},
            }
            if isinstance(row, Row):
                fields = dataclasses.asdict(config).items()
                settings |= {name: value for name, value in fields if name not in row.unused}
                settings |= row.network | row.settings
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


def _recipe(paper: str, run: Run, parts: dict[str, Path], data: Data, config, options) -> dict:
    """What reproduce.predict needs to call the script's `rows` again, without the dataset."""
    return {
        "script": f"reproduce.{paper}",
        "config": dataclasses.asdict(config),
        "options": json.loads(json.dumps(vars(options), default=str)),
        "columns": list(data.frame.columns),
        "resized": _data_of(run.row, data).resized,
        "parts": {name: os.path.relpath(path, run.folder) for name, path in parts.items()},
    }


def _begin(run: Run, data: Data, device: str = "", recipe: dict | None = None) -> None:
    """Make a run's folder and write down what it will be made from, and on what."""
    record = {"settings": run.settings, "recipe": recipe, "provenance": provenance(device)}
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        if data.template is not None:
            template_crop.save(run.folder / "template.npz", data.template)
        write_whole(run.folder / "config.json", json.dumps(record, indent=1))
    except OSError as error:
        raise RunError(
            f"The results cannot be written to {run.folder} ({error.strerror}): "
            "make it writable or give another --results-dir."
        ) from error


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
