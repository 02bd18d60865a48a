"""A trained run on new X-rays: probabilities, uncertainty and heatmaps. For research only.

    python -m reproduce.predict --run results/chen2019/plco/HLCP/seed-0 X-RAY.png MORE.dcm
    python -m reproduce.predict --run results/pham2019/chexpert/ensemble/seed-0 FOLDER --heatmaps

PNG, JPEG and DICOM, files or folders of them, prepared exactly as the run's own images were, for
every run of every paper, ensembles and fusions included. Writes predictions.csv and, with
--heatmaps, a PNG for each image. A file that cannot be used gets a line, and the exit code is 1.
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError, label_tree, labels
from data.augment import Augment
from data.images import BadImage, unlike_radiograph
from evaluation import uncertainty
from reproduce import RunError
from reproduce.engine import flags, rebuild

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
GENTLE = Augment(flip=True, degrees=7, scale=0.02, shear=5 / 224)  # Pham 2019, section 4.4
SHOWN = 6  # labels with a heatmap
DETAIL = 560  # pixels a side of a picture in a panel, at least
TREES = (
    (labels.CHEXPERT, label_tree.CHEXPERT),
    (labels.ASADI, label_tree.ASADI),
    (labels.PLCO, label_tree.PLCO),
    (labels.CHESTXRAY14_HIERARCHY, label_tree.CHESTXRAY14_HIERARCHY),
    (labels.CHEXPERT_HIERARCHY, label_tree.CHEXPERT_HIERARCHY),
)


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--heatmaps", action="store_true", help="a PNG panel for every image")
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR")
    options = parser.parse_args(given)
    if options.tta and options.mc:
        parser.error("--tta and --mc are two ways to draw; choose one")
    if any(number is not None and number < 2 for number in (options.tta, options.mc)):
        parser.error("--tta and --mc need at least 2 draws to differ")
    return options


def files_of(given: Sequence[Path]) -> list[Path]:
    """The files, and of folders every image in them, sorted; none twice."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = (each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
            found += sorted(inside)
        else:
            found.append(path)
    if not found:
        raise RunError(f"There are no {', '.join(SUFFIXES)} files in {given[0]}.")
    return list(dict.fromkeys(found))


def tree_of(names: Sequence[str]) -> np.ndarray:
    """(labels, labels) parents of the hierarchy that the labels are of, as far as they are in it.

    A parent that is not predicted is passed over to those above it.
    """
    exact = [known for known in TREES if list(known[0]) == list(names)]
    wider = [known for known in TREES if set(known[0]) >= set(names)]
    if not (exact or wider):
        return np.zeros((len(names), len(names)))
    order, tree = (exact or wider)[0]
    places = [order.index(name) for name in names]
    above = label_tree.ancestor_matrix(tree)[np.ix_(places, places)] - np.eye(len(places))
    return above * (above @ above == 0)  # ancestors with nothing in between


class Images:
    """Files decoded a batch at a time; what cannot be used is said and counted."""

    def __init__(self, files: Sequence[Path], networks: Sequence[rebuild.Rebuilt], batch: int):
        self.files, self.batch, self.failures = files, batch, 0
        self.alike = rebuild.same_pixels(networks)

    def __iter__(self) -> Iterator[tuple[list[Path], dict[Path, list[np.ndarray]]]]:
        """(files, images by run folder) of each batch."""
        from tqdm import tqdm

        with tqdm(self.files, unit="image", disable=not sys.stderr.isatty()) as bar:
            self.say = functools.partial(bar.write, file=sys.stdout)
            for start in range(0, len(self.files), self.batch):
                chunk = self.files[start : start + self.batch]
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
            images = {}
            for runs in self.alike.values():
                image = rebuild.read(runs[0], path)
                images |= {run.folder: image for run in runs}
            return images
        except BadImage as error:
            self.failures += 1
            bar.write(f"left out: {error}", file=sys.stderr)
            return None


def panel(path, source, run, models, of_run, names, found, spread, note) -> None:
    """The page of one image: `of_run` its pixels by run, `found` its probabilities."""
    from evaluation import panels

    shown = np.argsort(-found, kind="stable")[:SHOWN]
    heat = rebuild.heatmaps(run, models, {run: [one] for run, one in of_run.items()}, shown)[0]
    first = run.networks[0]
    zoom = -(-DETAIL // len(of_run[first.folder]))
    picture = rebuild.seen(first, rebuild.read(first, source, zoom), zoom)[..., 0]
    panels.prediction(
        path, picture, names, found, spread, shown, heat, tree_of(names), source.name, note
    )


def table(paths: Sequence[Path], names, mean: np.ndarray, spread: np.ndarray | None):
    """image, a column a label, and of several members a column `LABEL ±` of their deviation.

    Probabilities are not rounded: close to 1, six decimals would tie what the logits rank.
    """
    frame = pd.DataFrame(mean, columns=list(names))
    if spread is not None:
        frame = frame.join(pd.DataFrame(spread.round(6), columns=[f"{name} ±" for name in names]))
    frame.insert(0, "image", [str(path) for path in paths])
    return frame


def said(path: Path, names, mean: np.ndarray, spread: np.ndarray | None) -> str:
    """The likeliest labels of an image, in a line."""
    from evaluation.panels import percent

    likeliest = np.argsort(-mean, kind="stable")[:3]
    each = (None if spread is None else spread[k] for k in likeliest)
    texts = [f"{names[k]} {percent(mean[k], of)}" for k, of in zip(likeliest, each, strict=True)]
    return f"{path}: {', '.join(texts)}"


def predict(options: argparse.Namespace) -> int:
    """Everything that was asked for; the exit code."""
    from evaluation import panels, tables

    run, files = rebuild.load(options.run), files_of(options.images)
    models = rebuild.networks(run)
    passes = rebuild.passes_of(options.mc, options.tta, GENTLE)
    images = Images(files, run.networks, run.networks[0].config.batch_size)
    how = f"{options.mc} dropout passes" if options.mc else ""
    how = f"{options.tta} drawn views" if options.tta else how
    note = ", ".join(filter(None, [run.name, how, "trained on drawn phantoms" * run.phantom]))
    print(f"{note}.\n{panels.DISCLAIMER}", flush=True)
    done, stems = [], set()
    for paths, by_run in images:
        found = rebuild.predictions(run, models, by_run, [str(path) for path in paths], passes)
        spread = uncertainty.spread(found.probabilities) if len(found.probabilities) > 1 else None
        done.append(table(paths, found.labels, found.mean, spread))
        for place, path in enumerate(paths):
            of_image = None if spread is None else spread[place]
            if len(files) <= 20:
                images.say(said(path, found.labels, found.mean[place], of_image))
            if options.heatmaps:
                stem = path.stem if path.stem not in stems else f"{path.stem}-{len(stems)}"
                stems.add(stem)
                own = {folder: pixels[place] for folder, pixels in by_run.items()}
                out = options.out / f"{stem}.png"
                names, mean = list(found.labels), found.mean[place]
                panel(out, path, run, models, own, names, mean, of_image, note)
    if done:
        tables.to_csv(pd.concat(done, ignore_index=True), options.out / "predictions.csv")
        print(f"{sum(map(len, done)):,} of {len(files):,} images: {options.out}/predictions.csv")
    if images.failures:
        print(f"{images.failures:,} of {len(files):,} files were left out.", file=sys.stderr)
    return 1 if images.failures else 0


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    with flags.one_sentence():
        try:
            return predict(options)
        except OSError as error:
            raise DataError(
                f"{options.out} cannot be written to ({error.strerror}); give another --out."
            ) from error


if __name__ == "__main__":
    sys.exit(main())
