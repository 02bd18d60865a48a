"""Applies a trained run to new X-rays: probabilities, uncertainty, heatmaps. For research only.

    python -m reproduce.predict --run results/chen2019/plco/HLCP/seed-0 X-RAY.png MORE.dcm
    python -m reproduce.predict --run results/pham2019/chexpert/ensemble/seed-0 FOLDER --heatmaps

PNG, JPEG and DICOM, files or folders of them, prepared exactly as the run's own images were, for
every run of every paper, ensembles and fusions included. A label is called present where its
probability reaches the row's operating point, which the run's validation images chose. Writes a
line into predictions.csv as soon as an image is done and, with --heatmaps, a PNG for each image;
the same command again goes on where it stopped. A file that cannot be used is named and left out,
and the exit code is 1.
"""

import argparse
import contextlib
import csv
import functools
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import safefiles
from data import BadImage, label_tree
from data.augment import Augment
from data.images import unlike_radiograph
from evaluation import operating_points, uncertainty
from evaluation.predictions import load
from reproduce import Parser, RunError
from reproduce.engine import options as flags
from reproduce.engine import rebuild
from reproduce.engine.rows import Combined
from reproduce.tables import details, row_details

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
GENTLE = Augment(flip=True, degrees=7, scale=0.02, shear=5 / 224)  # Pham 2019, section 4.4
SHOWN = 6  # labels with a heatmap
DETAIL = 560  # pixels a side of a picture in a panel, at least
LONGEST_STEM = 100  # characters of a panel's name; file systems end at 255 bytes


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m reproduce.predict",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a file or a folder")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="of a finished run")
    parser.add_argument(
        "--tta", type=int, nargs="?", const=10, metavar="N", help="mean of N drawn views (10)"
    )
    parser.add_argument(
        "--mc", type=int, nargs="?", const=10, metavar="N", help="mean of N dropout passes (10)"
    )
    parser.add_argument(
        "--operating-point",
        type=operating_points.parse,
        default=operating_points.Rule(operating_points.YOUDEN),
        metavar="RULE",
        help="youden (default), sensitivity=0.9 or specificity=0.9",
    )
    parser.add_argument("--heatmaps", action="store_true", help="a PNG panel for every image")
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR")
    options = parser.parse_args(given)
    if lacking := [
        name for name, value in vars(options).items() if value == []
    ]:  # what Python 3.11 makes of --out=--
        parser.error(f"--{lacking[0].replace('_', '-')} needs a value")
    if options.tta and options.mc:
        parser.error("--tta and --mc are two ways to draw; choose one")
    if any(number is not None and number < 2 for number in (options.tta, options.mc)):
        parser.error("--tta and --mc need at least 2 draws to differ")
    return options


def image_files(given: Sequence[Path]) -> list[Path]:
    """The files, and of folders every image in them, sorted; none twice."""
    paths: list[Path] = []
    for path in given:
        if _is_folder(path):
            inside = (each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
            paths += sorted(inside)
        else:
            paths.append(path)
    if not paths:
        raise RunError(f"There are no {', '.join(SUFFIXES)} files in {given[0]}.")
    return list(dict.fromkeys(paths))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have; reading it says so
        return False


def shown(path: Path) -> str:
    """A path as text that can be printed and written, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# What is written


class Output:
    """predictions.csv, a line an image, written as soon as it is done, and the panels' names.

    predictions.json says which run and flags the lines are of: others' are never mixed with them.
    """

    def __init__(self, folder: Path, columns: Sequence[str], made_from: dict, members: bool):
        self.path, self.columns = folder / "predictions.csv", ["image", *columns]
        self.members = members  # whether there is a column `LABEL ±` of their deviation
        self.stems: dict[str, str] = {}  # panel by image
        about = folder / "predictions.json"
        text = self._text()
        if text.count("\n") > 1 and _content(about) != made_from:  # a lone header is free
            raise RunError(
                f"{self.path} holds predictions of another run, or with other flags: give another "
                "--out, or move that file away."
            )
        self.done = self._up_to_date(self._lines(text))
        safefiles.write(about, json.dumps(made_from, indent=1))
        self._write_anew()

    def _text(self) -> str:
        """The whole lines of the file; one that a kill cut short is left out."""
        if not self.path.exists():
            return ""
        text = self.path.read_bytes().decode("utf-8", "replace")
        return text[: text.rfind("\n") + 1]

    def _lines(self, text: str) -> dict[str, list[str]]:
        """The values of every image."""
        header, *lines = csv.reader(io.StringIO(text)) if text else [self.columns]
        if lines and header != self.columns:
            raise RunError(f"{self.path} has other columns: give another --out, or move it away.")
        return {line[0]: line[1:] for line in lines if len(line) == len(self.columns)}

    def _up_to_date(self, lines: dict[str, list[str]]) -> dict[str, list[str]]:
        """Without the images whose files were changed since."""
        written = self.path.stat().st_mtime if lines else 0.0

        def unchanged(image: str) -> bool:
            try:
                return os.stat(os.fsencode(image)).st_mtime <= written
            except (OSError, ValueError):
                return True  # gone since; its prediction stays

        return {image: values for image, values in lines.items() if unchanged(image)}

    def _write_anew(self) -> None:
        """The lines that stay, whole or not at all; the next ones are added to them."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([self.columns, *([image, *rest] for image, rest in self.done.items())])
        safefiles.write(self.path, lines.getvalue())

    def add(self, image: "Predicted") -> None:
        """Write an image's line; probabilities unrounded, as rounding would tie those near 1."""
        if (name := shown(image.path)) in self.done:  # only its panel was lacking
            return
        values = image.mean if image.spread is None else [*image.mean, *image.spread.round(6)]
        self.done[name] = [*(repr(float(value)) for value in values), *image.calls]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([name, *self.done[name]])

    def panel(self, path: Path) -> Path:
        """Where an image's panel goes; files of one name in several folders are numbered."""
        image = shown(path)
        if image not in self.stems:
            stem = Path(image).stem.replace("/", "-")
            if len(os.fsencode(stem)) > LONGEST_STEM:
                stem = (
                    f"{stem[: LONGEST_STEM // 4]}-{hashlib.sha256(image.encode()).hexdigest()[:8]}"
                )
            taken, number, name = {*self.stems.values()}, 0, stem
            while name in taken:
                number += 1
                name = f"{stem}-{number}"
            self.stems[image] = name
        return self.path.parent / f"{self.stems[image]}.png"


def _content(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def open_output(
    options: argparse.Namespace, run: rebuild.Rebuilt, members: bool
) -> Iterator[Output]:
    """The output folder, tried and held before any network is built."""
    made_from = {
        "run": str(run.folder.absolute()),
        "predictions.npz": safefiles.sha256(run.folder / "predictions.npz"),
        "tta": options.tta,
        "mc": options.mc,
        "operating point": str(options.operating_point),
    }
    columns = [*run.labels, *([f"{name} ±" for name in run.labels] if members else [])]
    columns += [f"{name} present" for name in run.labels]
    with safefiles.lock(options.out / ".lock") as held:
        if not held:
            raise RunError(f"Another command is writing to {options.out}: give another --out.")
        yield Output(options.out, columns, made_from, members)


# Images


class Images:
    """Files decoded a batch at a time; those that cannot be used are named and counted."""

    def __init__(self, paths: Sequence[Path], networks: Sequence[rebuild.Rebuilt], batch: int):
        self.paths, self.batch, self.failures = paths, batch, 0
        self.alike = rebuild.same_pixels(networks)

    def __iter__(self) -> Iterator[tuple[list[Path], dict[Path, list[np.ndarray]]]]:
        """(files, images by run folder) of each batch."""
        from tqdm import tqdm

        with tqdm(self.paths, unit="image", disable=not sys.stderr.isatty()) as bar:
            self.say = functools.partial(bar.write, file=sys.stdout)
            for start in range(0, len(self.paths), self.batch):
                chunk = self.paths[start : start + self.batch]
                usable = [(path, pixels) for path in chunk if (pixels := self._read(path, bar))]
                if usable:
                    paths, pixels = zip(*usable, strict=True)
                    by_run = {run: [each[run] for each in pixels] for run in pixels[0]}
                    yield list(paths), by_run
                bar.update(len(chunk))

    def _read(self, path: Path, bar) -> dict[Path, np.ndarray] | None:
        try:
            if reason := unlike_radiograph(path):
                raise BadImage(path, reason)
            images: dict[Path, np.ndarray] = {}
            for runs in self.alike.values():
                image = rebuild.read(runs[0], path)
                images |= {run.folder: image for run in runs}
            return images
        except BadImage as error:
            self.failures += 1
            bar.write(f"left out: {shown(path)} {error.reason}", file=sys.stderr)
            return None


class Predicted(NamedTuple):
    """What the run predicts of one image, and from which probability on a label is present."""

    path: Path
    pixels: dict[Path, np.ndarray]  # as each network's run reads the image
    names: list[str]
    mean: np.ndarray  # (labels,)
    spread: np.ndarray | None  # (labels,), where there are several members
    thresholds: np.ndarray  # (labels,), NaN where the run could not choose one

    @property
    def calls(self) -> list[str]:
        """present or absent for each label; empty where there is no threshold."""
        calls = np.where(self.mean >= self.thresholds, "present", "absent")
        return np.where(np.isnan(self.thresholds), "", calls).tolist()

    @property
    def line(self) -> str:
        """The likeliest labels."""
        from evaluation.panels import percent

        spread = [None] * len(self.names) if self.spread is None else self.spread
        likeliest = np.argsort(-self.mean, kind="stable")[:3]
        texts = (
            f"{self.names[k]} {percent(self.mean[k], spread[k])} {self.calls[k]}".strip()
            for k in likeliest
        )
        return f"{shown(self.path)}: {', '.join(texts)}"


def draw_panel(path: Path, run: rebuild.Rebuilt, models: dict, image: Predicted, note: str) -> None:
    """The page of one image: picture, likeliest labels, heatmaps, label tree."""
    from evaluation import panels

    likeliest = np.argsort(-image.mean, kind="stable")[:SHOWN]
    pixels = {folder: [one] for folder, one in image.pixels.items()}
    heat = rebuild.heatmaps(run, models, pixels, likeliest)[0]
    first = run.networks[0]
    zoom = -(-DETAIL // len(image.pixels[first.folder]))
    picture = rebuild.seen(first, rebuild.read(first, image.path, zoom), zoom)[..., 0]
    panels.prediction(
        path,
        picture,
        image.names,
        image.mean,
        image.spread,
        shown=likeliest,
        heat=heat,
        parents=label_tree.parents_among(image.names),
        title=Path(shown(image.path)).name,
        note=note,
    )


# The command


def predict(options: argparse.Namespace) -> int:
    """Predict every image that has no line yet; the exit code."""
    _refuse_failed(options.run)
    run, paths = rebuild.load(options.run), image_files(options.images)
    passes = rebuild.passes_of(options.mc, options.tta, GENTLE)
    members = len(load(run.folder / "predictions.npz").probabilities) > 1
    members |= passes is not None and not isinstance(run.row, Combined)
    how = f"{options.mc} dropout passes" if options.mc else ""
    how = f"{options.tta} drawn views" if options.tta else how
    note = ", ".join(filter(None, [run.name, how, "trained on drawn phantoms" * run.phantom]))
    with open_output(options, run, members) as out:
        panels = {path: out.panel(path) for path in paths} if options.heatmaps else {}
        due = [path for path in paths if shown(path) not in out.done]
        due += [path for path in panels if shown(path) in out.done and not panels[path].is_file()]
        if len(due) < len(paths):
            print(f"{len(paths) - len(due):,} of {len(paths):,} images are done and stay.")
        thresholds = _thresholds(options, run) if due else np.empty(0)
        work = due, run, passes, thresholds
        failures = _predict_due(*work, out=out, panels=panels, note=note) if due else 0
        done = sum(shown(path) in out.done for path in paths)
        print(f"{done:,} of {len(paths):,} images: {out.path}")
    if failures:
        print(f"{failures:,} of {len(paths):,} files were left out.", file=sys.stderr)
    return 1 if failures else 0


def _thresholds(options: argparse.Namespace, run: rebuild.Rebuilt) -> np.ndarray:
    """Each label's threshold at the run's operating point; prints how they were chosen."""
    test, validation = row_details.samples(run.folder)
    thresholds, where = details.thresholds(test, options.operating_point, validation)
    print(f"present: at or above the label's threshold ({options.operating_point}). {where}")
    if options.tta or options.mc:
        print("The thresholds are of the run's own reading, without --tta or --mc.")
    return thresholds


def _predict_due(
    due: list[Path], run: rebuild.Rebuilt, passes, thresholds: np.ndarray, *, out, panels, note
) -> int:
    """Predict images batch by batch, write each at once; how many could not be used."""
    from evaluation.panels import DISCLAIMER

    models = rebuild.networks(run)
    images = Images(due, run.networks, run.networks[0].config.batch_size)
    print(f"{note}.\n{DISCLAIMER}", flush=True)
    for batch, pixels in images:
        numbers = list(map(str, range(len(batch))))
        predictions = rebuild.predictions(run, models, pixels, numbers, passes)
        spread = uncertainty.spread(predictions.probabilities) if out.members else None
        for row, path in enumerate(batch):
            own = {folder: each[row] for folder, each in pixels.items()}
            own_spread = None if spread is None else spread[row]
            names = [str(name) for name in predictions.labels]
            mean = predictions.mean[row]
            image = Predicted(path, own, names, mean, own_spread, thresholds)
            if len(due) <= 20:
                images.say(image.line)
            if panels:
                draw_panel(panels[path], run, models, image, note)
            out.add(image)
    return images.failures


def _refuse_failed(folder: Path) -> None:
    failed = folder / "failed.json"
    if failed.is_file() and not (folder / "predictions.npz").is_file():
        record = _content(failed)
        reason = record.get("reason", "unknown") if isinstance(record, dict) else "unknown"
        raise RunError(
            f"{folder} failed: {reason}. Train it to its end first: its script tries failed rows "
            "again with --retry-failed."
        )


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    with flags.one_sentence("Stopped; the same command goes on with the images that are left."):
        return predict(options)


if __name__ == "__main__":
    sys.exit(main())
