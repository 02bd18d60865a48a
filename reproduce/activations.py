"""Grad-CAM of every label in one test image, as Asadi's Figure 3 shows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation import panels, predict, uncertainty
from reproduce import rebuild

DETAIL = 256  # pixels a side of a tile, at least


def figure(path: Path, folder: Path, root: Path, order: Sequence[int], among: Sequence[str], title):
    """The image of `root` with the most positive labels `among` some, by the run in `folder`.

    Nothing is drawn anew from the same predictions: it is the one figure that needs a network.
    """
    predictions = folder / "predictions.npz"
    if path.exists() and path.stat().st_mtime > predictions.stat().st_mtime:
        return path
    found, run = predict.load(predictions), rebuild.load(folder)
    image = int(np.nansum(found.targets[:, np.isin(found.labels, among)], axis=1).argmax())
    source, order = root / found.ids[image], list(order)
    pixels = rebuild.read(run, source)
    models = rebuild.networks(run)
    heat = rebuild.heatmaps(run, models, {each: [pixels] for each in models}, order)[0]
    zoom = -(-DETAIL // run.config.size)
    return panels.activations(
        path,
        rebuild.seen(run, rebuild.read(run, source, zoom), zoom)[..., 0],
        heat,
        found.labels[order],
        found.mean[image][order],
        uncertainty.spread(found.probabilities)[image][order],
        found.labels[found.targets[image] == 1],
        title=title,
    )
