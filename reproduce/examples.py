"""Example predictions with heatmaps (Pham 2019, Figure 5): what a trained row looks at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import augment
from evaluation import figures, grad_cam, predict, tables
from models import backbones
from reproduce.run import Data, Run


def draw(path: Path, of: Run, data: Data, config, options, labels: Sequence[str], title: str):
    """For each label, the test image that has it and is called with most confidence.

    The network is needed again, so a figure that is newer than its predictions stays.
    """
    predictions = of.folder / "predictions.npz"
    if path.exists() and path.stat().st_mtime > predictions.stat().st_mtime:
        return
    found = predict.load(predictions)
    columns = [list(found.labels).index(label) for label in labels]
    columns = [column for column in columns if (found.targets[:, column] == 1).any()]
    present = found.targets[:, columns] == 1
    images = np.where(present, found.mean[:, columns], -1).argmax(axis=0)
    pixels = augment.apply(
        data.cache.images(data.cache.rows(found.ids[images])), config.size
    )  # (examples, size, size, 1)
    from models import classifier  # imports Keras
    from reproduce import training

    network = training.network(of.row, config, options)
    classifier.load_weights(network, of.folder / "best.weights.h5")
    layer = backbones.find(of.settings["backbone"]).feature_layer
    heat = grad_cam.heatmaps(network, pixels, columns, layer)  # (examples, labels, h, w)
    figures.examples(
        path,
        [image[..., 0] for image in pixels],
        [grad_cam.overlay(image, heat[k, k]) for k, image in enumerate(pixels)],
        [_caption(found, image, column) for image, column in zip(images, columns, strict=True)],
        title,
        data.phantom,
    )


def _caption(found: predict.Predictions, image: int, column: int) -> str:
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
