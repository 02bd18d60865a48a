"""Apply a trained run to new X-rays: probabilities, uncertainty, heatmaps. For research only.

    python -m reproduce.predict --run results/chen2019/plco/HLCP X-RAY.png MORE.dcm
    python -m reproduce.predict --run results/pham2019/chexpert/ensemble-repaired FOLDER --heatmaps

IMAGE is a PNG, JPEG or DICOM file or a folder of them. Images are prepared exactly as the run's own
images were. Every run of every paper can be used, ensembles and fusions included. A label is called
present if its probability reaches the row's operating point, which was chosen on the run's
validation images. Each image adds one line to predictions.csv as soon as it is done and, with
--heatmaps, a PNG; rerun the command to resume. A file that cannot be used is named and left out,
and the exit code is 1.
"""

import argparse
import csv
import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import safefiles
from data import BadImage, label_tree
from data.augment import Augment
from data.images import unlike_radiograph
from evaluation import operating_points, uncertainty
from evaluation.predictions import load
from reproduce import Parser, RunError
from reproduce.engine import rebuild
from reproduce.engine.options import one_sentence
from reproduce.engine.rows import Combined
from reproduce.tables import details, row_details

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
GENTLE = Augment(flip=True, degrees=7, scale=0.02, shear=5 / 224)  # Pham 2019, section 4.4
SHOWN = 6  # labels with a heatmap
DETAIL = 560  # pixels per side of a picture in a panel, at least
LONGEST_STEM = 100  # characters of a panel's name; file systems end at 255 bytes
FEW = 20  # images whose predictions are printed as well


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        "python -m reproduce.predict",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="a file or a folder")
    add("--run", type=Path, required=True, metavar="DIR", help="a finished run, or its row")
    add("--tta", type=int, nargs="?", const=10, metavar="N", help="mean of N random views (10)")
    add("--mc", type=int, nargs="?", const=10, metavar="N", help="mean of N dropout passes (10)")
    add(
        "--operating-point",
        type=operating_points.parse,
        default=operating_points.Rule(operating_points.YOUDEN),
        metavar="RULE",
        help="youden (default), sensitivity=0.9 or specificity=0.9",
    )
    add("--heatmaps", action="store_true", help="a PNG panel for every image")
    add("--out", type=Path, default=Path("predictions"), metavar="DIR")
    options = parser.parse_args(given)
    if options.tta and options.mc:
        parser.error("--tta and --mc are two ways to predict several times; choose one")
    if any(number is not None and number < 2 for number in (options.tta, options.mc)):
        parser.error("--tta and --mc need at least 2 predictions to differ")
    return options


def image_files(given: Sequence[Path]) -> list[Path]:
    """Return the given files and all images in the given folders, each once."""
    paths: list[Path] = []
    for path in given:
        if os.path.isdir(path):  # False for a name that no file can have
            paths += sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
        else:
            paths.append(path)
    if not paths:
        raise RunError(f"There are no {', '.join(SUFFIXES)} files in {given[0]}.")
    return list(dict.fromkeys(paths))


def shown(path: Path) -> str:
    """Return a path as text that can be printed and written, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def refuse_failed(folder: Path) -> None:
    """Raise a RunError that says why a run failed, if it did."""
    failure = _json(folder / "failed.json")
    if isinstance(failure, dict) and not (folder / "predictions.npz").is_file():
        raise RunError(
            f"{folder} failed: {failure.get('reason', 'unknown')}. Finish its training first: its "
            "script tries failed rows again with --retry-failed."
        )


def _json(path: Path) -> object:
    """Return the content of a JSON file; None if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


# predictions.csv has one line per image; predictions.json says which run and flags made it


def resume(table: Path, columns: list[str], source: dict[str, Any]) -> set[str]:
    """Begin or continue predictions.csv; return the images that are done.

    Lines of images that changed since are removed, and a last line that a kill cut short. Raise a
    RunError if the lines were made by another run or with other flags.
    """
    header, lines, written, about = columns, [], 0.0, table.with_suffix(".json")
    if table.exists():
        text, written = table.read_bytes().decode("utf-8", "replace"), table.stat().st_mtime
        whole_lines = io.StringIO(text[: text.rfind("\n") + 1])
        header, *lines = list(csv.reader(whole_lines)) or [columns]
    if lines and (header != columns or _json(about) != source):
        raise RunError(
            f"{table} holds predictions of another run, or with other flags: give another --out, "
            "or move that file away."
        )
    kept = [line for line in lines if len(line) == len(columns) and not _changed(line[0], written)]
    safefiles.write(about, json.dumps(source, indent=1))
    safefiles.write(table, pd.DataFrame(kept, columns=columns).to_csv(index=False))
    return {line[0] for line in kept}


def _changed(image: str, since: float) -> bool:
    """Return True if an image's file was changed; one that is gone keeps its prediction."""
    try:
        return os.stat(os.fsencode(image)).st_mtime > since
    except (OSError, ValueError):
        return False


def panel_files(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the file of each image's panel; equal names from several folders are numbered."""
    names: dict[str, Path] = {}
    for path in paths:
        stem = Path(shown(path)).stem
        if len(os.fsencode(stem)) > LONGEST_STEM:
            digest = hashlib.sha256(shown(path).encode()).hexdigest()[:8]
            stem = f"{stem[: LONGEST_STEM // 4]}-{digest}"
        candidates = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(1)))
        names[next(name for name in candidates if name not in names)] = path
    return {path: folder / f"{name}.png" for name, path in names.items()}


# Prediction


class Prediction(NamedTuple):
    """The prediction of one image; arrays have one value per label."""

    path: Path
    pixels: dict[Path, np.ndarray]  # as each network's run reads the image
    mean: np.ndarray
    spread: np.ndarray | None  # None if there is a single member
    calls: list[str]  # present or absent; empty if the label has no threshold


@dataclass
class Predictor:
    """A run with its networks, and how they are applied."""

    run: rebuild.Rebuilt[Any]
    models: dict[Path, Any]
    passes: rebuild.Passes | None
    several: bool  # True if an image has several predictions
    thresholds: np.ndarray  # (labels,) from which a label is present; NaN if unknown
    note: str

    def __post_init__(self) -> None:
        self.labels = list(self.run.labels)
        self.groups = list(rebuild.same_pixels(self.run.networks).values())

    def read(self, path: Path) -> dict[Path, np.ndarray]:
        """Return an image as each run reads it, by the run's folder; raise BadImage."""
        if reason := unlike_radiograph(path):
            raise BadImage(path, reason)
        pixels: dict[Path, np.ndarray] = {}
        for alike in self.groups:  # the runs of a group read an image alike
            image = rebuild.read(alike[0], path)
            pixels |= {run.folder: image for run in alike}
        return pixels

    def predict(self, images: Mapping[Path, dict[Path, np.ndarray]]) -> list[Prediction]:
        """Predict some images from `read`."""
        if not images:
            return []
        folders = [network.folder for network in self.run.networks]
        by_run = {folder: [pixels[folder] for pixels in images.values()] for folder in folders}
        found = rebuild.predictions(self.run, self.models, by_run, range(len(images)), self.passes)
        spreads = uncertainty.spread(found.probabilities) if self.several else [None] * len(images)
        calls = np.where(found.mean >= self.thresholds, "present", "absent")
        calls[:, np.isnan(self.thresholds)] = ""
        return [
            Prediction(path, pixels, mean, spread, own_calls)
            for (path, pixels), mean, spread, own_calls in zip(
                images.items(), found.mean, spreads, calls.tolist(), strict=True
            )
        ]


def in_words(labels: Sequence[str], image: Prediction) -> str:
    """Return the three most likely labels of an image as text."""
    from evaluation.panels import percent

    texts = []
    for k in np.argsort(-image.mean, kind="stable")[:3]:
        spread = None if image.spread is None else image.spread[k]
        texts.append(f"{labels[k]} {percent(image.mean[k], spread)} {image.calls[k]}".strip())
    return f"{shown(image.path)}: {', '.join(texts)}"


def append(table: Path, image: Prediction) -> None:
    """Write one line; probabilities are not rounded, because that would tie those near 1."""
    values = image.mean if image.spread is None else [*image.mean, *image.spread.round(6)]
    line = [shown(image.path), *map(float, values), *image.calls]
    pd.DataFrame([line]).to_csv(table, mode="a", header=False, index=False)


def draw_panel(path: Path, predictor: Predictor, image: Prediction) -> None:
    """Draw one image's page: picture, most likely labels, heatmaps, label tree."""
    from evaluation import panels

    run, first = predictor.run, predictor.run.networks[0]
    likeliest = np.argsort(-image.mean, kind="stable")[:SHOWN]
    pixels = {folder: [own] for folder, own in image.pixels.items()}
    zoom = -(-DETAIL // len(image.pixels[first.folder]))
    panels.prediction(
        path,
        rebuild.seen(first, rebuild.read(first, image.path, zoom), zoom)[..., 0],
        predictor.labels,
        image.mean,
        image.spread,
        shown=likeliest,
        heat=rebuild.heatmaps(run, predictor.models, pixels, likeliest)[0],
        parents=label_tree.parents_among(predictor.labels),
        title=Path(shown(image.path)).name,
        note=predictor.note,
    )


# The command


def predict(options: argparse.Namespace) -> int:
    """Predict every image that has no line yet; return the exit code."""
    refuse_failed(options.run)
    run, paths = rebuild.load(options.run), image_files(options.images)
    passes = rebuild.passes_of(options.mc, options.tta, GENTLE)
    several = len(load(run.folder / "predictions.npz").probabilities) > 1
    several |= passes is not None and not isinstance(run.row, Combined)
    spread = [f"{name} ±" for name in run.labels] if several else []
    columns = ["image", *run.labels, *spread, *(f"{name} present" for name in run.labels)]
    source = {
        "run": str(run.folder.absolute()),
        "predictions.npz": safefiles.sha256(run.folder / "predictions.npz"),
        "tta": options.tta,
        "mc": options.mc,
        "operating point": str(options.operating_point),
    }
    table, failures = options.out / "predictions.csv", 0
    panels = panel_files(paths, options.out) if options.heatmaps else {}
    with safefiles.lock(options.out / ".lock") as locked:  # before any network is built
        if not locked:
            raise RunError(f"Another command is writing to {options.out}: give another --out.")
        done = resume(table, columns, source)
        due = [
            path
            for path in paths
            if shown(path) not in done or (panels and not panels[path].is_file())
        ]
        if len(due) < len(paths):
            print(f"{len(paths) - len(due):,} of {len(paths):,} images are done already.")
        if due:
            chosen = thresholds(options, run)
            models = rebuild.networks(run)
            predictor = Predictor(run, models, passes, several, chosen, note_on(run, options))
            failures = predict_due(due, predictor, table, done, panels)
    written = sum(shown(path) in done for path in paths)
    print(f"{written:,} of {len(paths):,} images: {table}")
    if failures:
        print(f"{failures:,} of {len(paths):,} files were left out.", file=sys.stderr)
    return 1 if failures else 0


def thresholds(options: argparse.Namespace, run: rebuild.Rebuilt[Any]) -> np.ndarray:
    """Return each label's threshold at the operating point, and print how it was chosen."""
    test, validation = row_details.samples(run.folder)
    chosen, where = details.thresholds(test, options.operating_point, validation)
    print(f"A label is present at or above its threshold ({options.operating_point}). {where}")
    if options.tta or options.mc:
        print("The thresholds belong to the run's own predictions, without --tta or --mc.")
    return chosen


def note_on(run: rebuild.Rebuilt[Any], options: argparse.Namespace) -> str:
    """Return the run, the passes and any warning in words."""
    parts = [run.name]
    if options.tta:
        parts.append(f"{options.tta} random views")
    if options.mc:
        parts.append(f"{options.mc} dropout passes")
    if run.phantom:
        parts.append("trained on drawn phantoms")
    return ", ".join(parts)


def predict_due(
    due: Sequence[Path],
    predictor: Predictor,
    table: Path,
    done: set[str],
    panels: Mapping[Path, Path],
) -> int:
    """Predict images batch by batch and add them to `done`; return how many cannot be used."""
    from tqdm import tqdm

    from evaluation.panels import DISCLAIMER

    print(f"{predictor.note}.\n{DISCLAIMER}", flush=True)
    size, failures = predictor.run.networks[0].row.fit.batch_size, 0
    with tqdm(total=len(due), unit="image", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(due), size):
            images = {}
            for path in due[start : start + size]:
                try:
                    images[path] = predictor.read(path)
                except BadImage as error:
                    failures += 1
                    bar.write(f"left out: {shown(path)} {error.reason}", file=sys.stderr)
            for image in predictor.predict(images):
                if len(due) <= FEW:
                    bar.write(in_words(predictor.labels, image), file=sys.stdout)
                if panels:
                    draw_panel(panels[image.path], predictor, image)
                if shown(image.path) not in done:  # else only its panel was missing
                    append(table, image)
                    done.add(shown(image.path))
            bar.update(min(size, len(due) - start))
    return failures


def main(given: list[str] | None = None) -> int:
    """Run the command with its errors as one sentence; return the exit code."""
    options = arguments(given)
    with one_sentence("Stopped; rerun the command to predict the remaining images."):
        return predict(options)


if __name__ == "__main__":
    sys.exit(main())
