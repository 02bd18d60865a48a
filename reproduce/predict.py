"""Apply a trained run to new X-rays: probabilities, uncertainty, heatmaps. For research only.

    python -m reproduce.predict --run results/chen2019/plco/HLCP X-RAY.png MORE.dcm
    python -m reproduce.predict --run results/pham2019/chexpert/ensemble FOLDER --heatmaps

IMAGE is a PNG, JPEG or DICOM file or a folder of them. Images are prepared exactly as the run's own
images were. Every run of every paper can be used, ensembles and fusions included. A label is called
present if its probability reaches the row's operating point, which was chosen on the run's
validation images. Each image adds one line to predictions.csv as soon as it is done and, with
--heatmaps, a PNG; rerun the command to resume. A file that cannot be used is named and left out,
and the exit code is 1.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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


def refuse_failed(folder: Path) -> None:
    """Raise a RunError that says why a run failed, if it did."""
    failure = folder / "failed.json"
    if failure.is_file() and not (folder / "predictions.npz").is_file():
        record = _json(failure)
        reason = record.get("reason", "unknown") if isinstance(record, dict) else "unknown"
        raise RunError(
            f"{folder} failed: {reason}. Finish its training first: its script tries failed rows "
            "again with --retry-failed."
        )


def image_files(given: Sequence[Path]) -> list[Path]:
    """Return the given files and all images in the given folders, each once."""
    paths: list[Path] = []
    for path in given:
        if os.path.isdir(path):  # False for a name that no file can have
            images = (each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
            paths += sorted(images)
        else:
            paths.append(path)
    if not paths:
        raise RunError(f"There are no {', '.join(SUFFIXES)} files in {given[0]}.")
    return list(dict.fromkeys(paths))


def shown(path: Path) -> str:
    """Return a path as text that can be printed and written, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# One image: its pixels, its prediction, its panel


def read_image(
    path: Path, groups: Sequence[Sequence[rebuild.Rebuilt[Any]]]
) -> dict[Path, np.ndarray]:
    """Return an image as each run reads it, by the run's folder; the runs of a group read alike."""
    if reason := unlike_radiograph(path):
        raise BadImage(path, reason)
    pixels: dict[Path, np.ndarray] = {}
    for runs in groups:
        image = rebuild.read(runs[0], path)
        pixels |= {run.folder: image for run in runs}
    return pixels


class Predicted(NamedTuple):
    """The prediction of one image."""

    path: Path
    pixels: dict[Path, np.ndarray]  # as each network's run reads the image
    labels: Sequence[str]
    mean: np.ndarray  # (labels,)
    spread: np.ndarray | None  # (labels,), if there are several members
    thresholds: np.ndarray  # (labels,) from which a label is present; NaN if unknown

    @property
    def calls(self) -> list[str]:
        """Return present or absent for each label; empty if it has no threshold."""
        calls = np.where(self.mean >= self.thresholds, "present", "absent")
        return [str(call) for call in np.where(np.isnan(self.thresholds), "", calls)]

    @property
    def line(self) -> str:
        """Return the three most likely labels in words."""
        from evaluation.panels import percent

        spread = [None] * len(self.labels) if self.spread is None else self.spread
        likeliest = np.argsort(-self.mean, kind="stable")[:3]
        texts = (
            f"{self.labels[k]} {percent(self.mean[k], spread[k])} {self.calls[k]}".strip()
            for k in likeliest
        )
        return f"{shown(self.path)}: {', '.join(texts)}"


def draw_panel(
    path: Path, run: rebuild.Rebuilt[Any], models: dict[Path, Any], image: Predicted, note: str
) -> None:
    """Draw one image's page: picture, most likely labels, heatmaps, label tree."""
    from evaluation import panels

    likeliest = np.argsort(-image.mean, kind="stable")[:SHOWN]
    pixels = {folder: [own] for folder, own in image.pixels.items()}
    first = run.networks[0]
    zoom = -(-DETAIL // len(image.pixels[first.folder]))
    panels.prediction(
        path,
        rebuild.seen(first, rebuild.read(first, image.path, zoom), zoom)[..., 0],
        image.labels,
        image.mean,
        image.spread,
        shown=likeliest,
        heat=rebuild.heatmaps(run, models, pixels, likeliest)[0],
        parents=label_tree.parents_among(image.labels),
        title=Path(shown(image.path)).name,
        note=note,
    )


def panel_files(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the file of each image's panel; equal names from several folders are numbered."""
    names: dict[str, Path] = {}
    for path in paths:
        image = shown(path)
        stem = Path(image).stem.replace("/", "-")
        if len(os.fsencode(stem)) > LONGEST_STEM:
            digest = hashlib.sha256(image.encode()).hexdigest()[:8]
            stem = f"{stem[: LONGEST_STEM // 4]}-{digest}"
        name, number = stem, 0
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names[name] = path
    return {path: folder / f"{name}.png" for name, path in names.items()}


# predictions.csv


class Output:
    """predictions.csv with one line per image, each written as soon as the image is done.

    predictions.json records the run and the flags; predictions of others are never mixed with them.
    """

    def __init__(self, folder: Path, columns: Sequence[str], source: dict[str, Any]):
        self.path, self.columns = folder / "predictions.csv", ["image", *columns]
        about = folder / "predictions.json"
        header, lines = self._read()
        if lines and (header != self.columns or _json(about) != source):
            raise RunError(
                f"{self.path} holds predictions of another run, or with other flags: give another "
                "--out, or move that file away."
            )
        written = self.path.stat().st_mtime if lines else 0.0
        whole = [line for line in lines if len(line) == len(self.columns)]
        kept = [line for line in whole if not _changed(line[0], written)]
        self.done = {line[0] for line in kept}
        safefiles.write(about, json.dumps(source, indent=1))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *kept])
        safefiles.write(self.path, text.getvalue())

    def _read(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the lines, without a last line that a kill cut short."""
        if not self.path.exists():
            return [], []
        text = self.path.read_bytes().decode("utf-8", "replace")
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        return (lines[0], lines[1:]) if lines else ([], [])

    def add(self, image: Predicted) -> None:
        """Write one line; probabilities are not rounded, because that would tie those near 1."""
        name = shown(image.path)
        if name in self.done:  # only its panel was missing
            return
        values = image.mean if image.spread is None else [*image.mean, *image.spread.round(6)]
        line = [name, *(repr(float(value)) for value in values), *image.calls]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(line)
        self.done.add(name)


def _changed(image: str, since: float) -> bool:
    """Return True if an image's file was changed; one that is gone keeps its prediction."""
    try:
        return os.stat(os.fsencode(image)).st_mtime > since
    except (OSError, ValueError):
        return False


def _json(path: Path) -> object:
    """Return the content of a JSON file; None if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def open_output(
    options: argparse.Namespace, run: rebuild.Rebuilt[Any], several: bool
) -> Iterator[Output]:
    """Open and lock the output folder, before any network is built."""
    source = {
        "run": str(run.folder.absolute()),
        "predictions.npz": safefiles.sha256(run.folder / "predictions.npz"),
        "tta": options.tta,
        "mc": options.mc,
        "operating point": str(options.operating_point),
    }
    spread = [f"{name} ±" for name in run.labels] if several else []
    columns = [*run.labels, *spread, *(f"{name} present" for name in run.labels)]
    with safefiles.lock(options.out / ".lock") as locked:
        if not locked:
            raise RunError(f"Another command is writing to {options.out}: give another --out.")
        yield Output(options.out, columns, source)


# The command


def predict(options: argparse.Namespace) -> int:
    """Predict every image that has no line yet; return the exit code."""
    refuse_failed(options.run)
    run, paths = rebuild.load(options.run), image_files(options.images)
    passes = rebuild.passes_of(options.mc, options.tta, GENTLE)
    several = len(load(run.folder / "predictions.npz").probabilities) > 1
    several |= passes is not None and not isinstance(run.row, Combined)
    drawn = f"{options.mc} dropout passes" if options.mc else ""
    drawn = f"{options.tta} random views" if options.tta else drawn
    note = ", ".join(filter(None, [run.name, drawn, "trained on drawn phantoms" * run.phantom]))
    with open_output(options, run, several) as output:
        panels = panel_files(paths, options.out) if options.heatmaps else {}
        due = [
            path
            for path in paths
            if shown(path) not in output.done or (panels and not panels[path].is_file())
        ]
        if len(due) < len(paths):
            print(f"{len(paths) - len(due):,} of {len(paths):,} images are done already.")
        failures = predict_due(due, options, run, passes, several, output, panels, note)
        done = sum(shown(path) in output.done for path in paths)
        print(f"{done:,} of {len(paths):,} images: {output.path}")
    if failures:
        print(f"{failures:,} of {len(paths):,} files were left out.", file=sys.stderr)
    return 1 if failures else 0


def predict_due(
    due: Sequence[Path],
    options: argparse.Namespace,
    run: rebuild.Rebuilt[Any],
    passes: rebuild.Passes | None,
    several: bool,
    output: Output,
    panels: Mapping[Path, Path],
    note: str,
) -> int:
    """Predict images batch by batch and write each; return how many files cannot be used."""
    if not due:
        return 0
    from tqdm import tqdm

    from evaluation.panels import DISCLAIMER

    chosen = thresholds(options, run)
    models, groups = rebuild.networks(run), list(rebuild.same_pixels(run.networks).values())
    print(f"{note}.\n{DISCLAIMER}", flush=True)
    size, failures = run.networks[0].row.fit.batch_size, 0
    with tqdm(total=len(due), unit="image", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(due), size):
            pixels: dict[Path, dict[Path, np.ndarray]] = {}
            for path in due[start : start + size]:
                try:
                    pixels[path] = read_image(path, groups)
                except BadImage as error:
                    failures += 1
                    bar.write(f"left out: {shown(path)} {error.reason}", file=sys.stderr)
            for image in predict_batch(run, models, pixels, passes, several, chosen):
                if len(due) <= FEW:
                    bar.write(image.line, file=sys.stdout)
                if panels:
                    draw_panel(panels[image.path], run, models, image, note)
                output.add(image)
            bar.update(min(size, len(due) - start))
    return failures


def predict_batch(
    run: rebuild.Rebuilt[Any],
    models: dict[Path, Any],
    pixels: Mapping[Path, dict[Path, np.ndarray]],
    passes: rebuild.Passes | None,
    several: bool,
    chosen: np.ndarray,
) -> list[Predicted]:
    """Predict some images, given as each network's run reads them."""
    if not pixels:
        return []
    folders = [network.folder for network in run.networks]
    by_run = {folder: [own[folder] for own in pixels.values()] for folder in folders}
    numbers = [str(number) for number in range(len(pixels))]
    predicted = rebuild.predictions(run, models, by_run, numbers, passes)
    spread: Sequence[np.ndarray | None] = [None] * len(pixels)
    if several:
        spread = list(uncertainty.spread(predicted.probabilities))
    labels = [str(name) for name in predicted.labels]
    return [
        Predicted(path, own, labels, mean, own_spread, chosen)
        for (path, own), mean, own_spread in zip(
            pixels.items(), predicted.mean, spread, strict=True
        )
    ]


def thresholds(options: argparse.Namespace, run: rebuild.Rebuilt[Any]) -> np.ndarray:
    """Return each label's threshold at the operating point, and print how it was chosen."""
    test, validation = row_details.samples(run.folder)
    chosen, where = details.thresholds(test, options.operating_point, validation)
    print(f"A label is present at or above its threshold ({options.operating_point}). {where}")
    if options.tta or options.mc:
        print("The thresholds belong to the run's own predictions, without --tta or --mc.")
    return chosen


def main(given: list[str] | None = None) -> int:
    """Run the command with its errors as one sentence; return the exit code."""
    options = arguments(given)
    with one_sentence("Stopped; rerun the command to predict the remaining images."):
        return predict(options)


if __name__ == "__main__":
    sys.exit(main())
