"""Figures with Grad-CAM heat maps: the only tables or figures that need a network again.

A figure that is newer than the predictions that it shows stays.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import augment
from evaluation import figures, heatmap, panels, predictions, tables, uncertainty
from reproduce.engine import rebuild
from reproduce.engine.rows import Data, Run

DETAIL = 256  # pixels a side of a tile, at least


def of_one_image(
    path: Path, run_folder: Path, root: Path, order: Sequence[int], among: Sequence[str], title: str
) -> Path:
    """Heat maps of every label in one test image (Asadi 2025, Figure 3).

    It is the image with the most positive labels `among` some.
    """
    if _up_to_date(path, run_folder):
        return path
    found, run = predictions.load(run_folder / "predictions.npz"), rebuild.load(run_folder)
    image = int(np.nansum(found.targets[:, np.isin(found.labels, among)], axis=1).argmax())
    source, order = root / found.ids[image], list(order)
    pixels = rebuild.read(run, source)
    networks = rebuild.networks(run)
    heat = rebuild.heatmaps(run, networks, {each: [pixels] for each in networks}, order)[0]
    zoom = -(-DETAIL // run.config.size)
    return panels.activations(
        path,
        rebuild.seen(run, rebuild.read(run, source, zoom), zoom)[..., 0],
        heat,
        found.labels[order],
        found.mean[image][order],
        uncertainty.spread(found.probabilities)[image][order],
        true=found.labels[found.targets[image] == 1],
        title=title,
    )


def of_examples(path: Path, run: Run, data: Data, labels: Sequence[str], title: str) -> None:
    """For each label, the positive test image with the highest probability (Pham 2019, Fig. 5)."""
    if _up_to_date(path, run.folder):
        return
    found, rebuilt = predictions.load(run.folder / "predictions.npz"), rebuild.load(run.folder)
    columns = [list(found.labels).index(label) for label in labels]
    columns = [column for column in columns if (found.targets[:, column] == 1).any()]
    present = found.targets[:, columns] == 1
    images = np.where(present, found.mean[:, columns], -1).argmax(axis=0)
    decoded = data.pixels.images(data.pixels.indices(found.ids[images]))
    networks = rebuild.networks(rebuilt)
    heat = rebuild.heatmaps(rebuilt, networks, dict.fromkeys(networks, decoded), columns)
    pixels = augment.apply(decoded, rebuilt.config.size)[..., 0]  # (examples, size, size)
    figures.examples(
        path,
        list(pixels),
        [heatmap.overlay(image, heat[k, k]) for k, image in enumerate(pixels)],
        [_caption(found, image, column) for image, column in zip(images, columns, strict=True)],
        title,
        data.phantom,
    )


def _up_to_date(path: Path, run_folder: Path) -> bool:
    made_from = run_folder / "predictions.npz"
    return path.exists() and path.stat().st_mtime > made_from.stat().st_mtime


def _caption(found: predictions.Predictions, image: int, column: int) -> str:
    """The label's probability, and what else the image has or is called."""
    others = [
        f"{label} {tables.number(probability, 2)}" + " (present)" * bool(target == 1)
        for label, probability, target in zip(
            found.labels, found.mean[image], found.targets[image], strict=True
        )
        if label != found.labels[column] and (target == 1 or probability > 0.5)
    ]
    heading = f"{found.labels[column]} {tables.number(found.mean[image, column], 2)}"
    return "\n".join([heading, *others])
