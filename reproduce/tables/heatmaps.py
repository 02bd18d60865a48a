"""Draw figures of Grad-CAM heatmaps: the only tables or figures that need a network again.

A figure that is newer than the predictions that it shows is not drawn again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import augment
from evaluation import figures, heatmap, panels, predictions, tables, uncertainty
from reproduce.engine import rebuild
from reproduce.engine.rows import Data, Run

DETAIL = 256  # pixels per side of a tile, at least


def one_image(
    path: Path, run_folder: Path, data: Data, order: Sequence[int], among: Sequence[str], title: str
) -> None:
    """Draw heatmaps of the labels in `order` for one test image (Asadi 2025, Figure 3).

    It is the image with the most positive labels `among` some. Its file, if it has one, is shown in
    more detail than the network sees.
    """
    if up_to_date(path, run_folder):
        return
    predicted, run = predictions.load(run_folder / "predictions.npz"), rebuild.load(run_folder)
    positives = np.nansum(predicted.targets[:, np.isin(predicted.labels, among)], axis=1)
    image = int(positives.argmax())
    source, columns = Path(data.folder) / predicted.ids[image], list(order)
    networks = rebuild.networks(run)
    decoded = data.pixels.images(data.pixels.indices(predicted.ids[[image]]))
    shown, zoom = decoded[0], 1
    if source.is_file():
        zoom = -(-DETAIL // run.row.network.size)
        shown = rebuild.read(run, source, zoom)
    panels.activations(
        path,
        rebuild.seen(run, shown, zoom)[..., 0],
        rebuild.heatmaps(run, networks, dict.fromkeys(networks, decoded), columns)[0],
        predicted.labels[columns],
        predicted.mean[image][columns],
        uncertainty.spread(predicted.probabilities)[image][columns],
        true=predicted.labels[predicted.targets[image] == 1],
        title=title,
    )


def examples(path: Path, run: Run[Any], data: Data, labels: Sequence[str], title: str) -> None:
    """Draw each label's positive test image of highest probability (Pham 2019, Figure 5)."""
    if up_to_date(path, run.folder):
        return
    predicted, rebuilt = predictions.load(run.folder / "predictions.npz"), rebuild.load(run.folder)
    columns = [list(predicted.labels).index(label) for label in labels]
    columns = [column for column in columns if (predicted.targets[:, column] == 1).any()]
    present = predicted.targets[:, columns] == 1
    images = np.where(present, predicted.mean[:, columns], -1).argmax(axis=0)
    decoded = data.pixels.images(data.pixels.indices(predicted.ids[images]))
    networks = rebuild.networks(rebuilt)
    heat = rebuild.heatmaps(rebuilt, networks, dict.fromkeys(networks, decoded), columns)
    size = rebuilt.networks[0].row.network.size
    pixels = augment.apply(decoded, size)[..., 0]  # (examples, size, size)
    figures.examples(
        path,
        list(pixels),
        [heatmap.overlay(image, heat[k, k]) for k, image in enumerate(pixels)],
        [_caption(predicted, image, column) for image, column in zip(images, columns, strict=True)],
        title,
        data.phantom,
    )


def up_to_date(path: Path, run_folder: Path) -> bool:
    """Return True if a file is newer than the predictions of a run."""
    source = run_folder / "predictions.npz"
    return path.exists() and path.stat().st_mtime > source.stat().st_mtime


def _caption(predicted: predictions.Predictions, image: int, column: int) -> str:
    """Return the label's probability, and the image's other labels, true or predicted."""
    lines = [f"{predicted.labels[column]} {tables.number(predicted.mean[image, column], 2)}"]
    for other, label in enumerate(predicted.labels):
        probability, present = predicted.mean[image, other], predicted.targets[image, other] == 1
        if other != column and (present or probability > 0.5):
            lines.append(f"{label} {tables.number(probability, 2)}" + " (present)" * bool(present))
    return "\n".join(lines)
