"""A finished run's network without its dataset: the script's `rows` are called again.

config.json holds the script, its Config and the columns of its frame; with no images in the frame
every array of targets is empty, but networks, labels and probabilities are those of the run.
"""

import argparse
import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

import numpy as np
import pandas as pd

from data import augment, template_crop
from data.images import read_gray
from evaluation.predictions import Predictions
from models import inference
from reproduce import ROOT, RunError
from reproduce.engine import backend, ranges, state
from reproduce.engine.rows import AnyRow, Combined, Data, Row


class Rebuilt(NamedTuple, Generic[AnyRow]):
    """One run: what it predicts, from which pixels, and of which other runs it is made."""

    folder: Path
    script: str
    row: AnyRow
    config: Any  # the script's Config
    options: argparse.Namespace
    seed: int
    resized: int
    template: np.ndarray | None
    parts: dict[str, "Rebuilt"]
    phantom: bool

    @property
    def labels(self) -> Sequence[str]:
        """Of a combination: those of its parts, which have the same."""
        if isinstance(self.row, Combined):
            return next(iter(self.parts.values())).labels
        return list(self.row.task.labels)

    @property
    def networks(self) -> list["Rebuilt"]:
        """The run itself, or the runs with a network of which it is combined."""
        if not isinstance(self.row, Combined):
            return [self]
        return [network for part in self.parts.values() for network in part.networks]

    @property
    def name(self) -> str:
        return f"{self.script.rpartition('.')[2]} {self.row.name}, seed {self.seed}"


def load(folder: Path) -> Rebuilt:
    """The run of a folder such as results/chen2019/plco/HLCP/seed-0."""
    record = state.record(folder)
    if record is None:
        raise RunError(
            f"{folder} is no run: give the folder of one row and seed, such as "
            f"results/chen2019/plco/HLCP/seed-0.{_runs_below(folder)}"
        )
    recipe, settings = record["recipe"], record["settings"]
    if not (folder / state.FINISHED).exists():
        raise RunError(
            f"{folder} is not finished: run its script to the end first, "
            f"python -m {recipe.get('script', 'reproduce.NAME')} with the same flags."
        )
    if "digest" not in record or not recipe:
        raise RunError(
            f"{folder} was made by an earlier version, which did not record what its files must "
            "be: train that row again in another --results-dir."
        )
    state.load_predictions(folder, record["digest"])
    try:
        script = _script(recipe["script"])
        config = script.Config(**recipe["config"])
        ranges.check(config)
        config = dataclasses.replace(config, weights="none")  # the run's own are in its folder
        frame = pd.DataFrame({name: pd.Series(dtype=object) for name in recipe["columns"]})
        rows = {row.name: row for row in script.rows(config, Data(frame, None, settings["data"]))}
        row = rows[recipe.get("row", settings["row"])]
        parts = {name: folder / path for name, path in recipe["parts"].items()}
        options = argparse.Namespace(**recipe["options"])
        seed, resized = int(settings["seed"]), int(recipe["resized"])
        phantom = bool(settings["data"]["phantom"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{folder / state.RECORD} does not fit this version of the suite "
            f"({type(error).__name__}: {error}): train that row again in another --results-dir."
        ) from error
    return Rebuilt(
        folder,
        recipe["script"],
        row,
        config,
        options,
        seed,
        resized=resized,
        template=state.template_of(folder),
        parts={name: load(path) for name, path in parts.items()},
        phantom=phantom,
    )


def _script(name: object):
    """A paper's script of this suite; nothing else is imported, whatever a file says."""
    match = re.fullmatch(r"reproduce\.([a-z]\w*)", str(name))
    if not match or not (ROOT / "reproduce" / f"{match[1]}.sh").is_file():
        raise ValueError(f"{name!r} is no script of a paper")
    return importlib.import_module(match[0])


def _runs_below(folder: Path) -> str:
    below = sorted(path.parent for path in folder.glob("**/config.json"))[:3]
    return f" Below it lie {', '.join(map(str, below))}." if below else ""


def network(run: Rebuilt[Row]):
    """The run's trained Keras network; a row of 0 epochs has the weights that it starts from."""
    from models import classifier
    from reproduce.engine import fit

    trained = run if run.row.fit.epochs else run.parts[run.row.start_from]
    model = fit.build_network(run.row, run.config, run.options)
    classifier.load_weights(model, state.weights_of(trained.folder))
    return model


def networks(run: Rebuilt) -> dict[Path, Any]:
    """The trained network of every run that this one is or is combined of, by the run's folder."""
    backend.start("any")
    return {each.folder: network(each) for each in run.networks}


def read(run: Rebuilt, path: Path, zoom: int = 1) -> np.ndarray:
    """An image as the run's cache holds it; `zoom` times as large, to be looked at."""
    image = read_gray(path, run.resized)
    if run.template is None:
        window = image.shape[0], 0, 0
    else:
        window = len(run.template), *template_crop.locate(image, run.template)
    side, top, left = (zoom * place for place in window)
    if zoom > 1:
        image = read_gray(path, zoom * run.resized)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def seen(run: Rebuilt, image: np.ndarray, zoom: int = 1) -> np.ndarray:
    """The part of an image from `read` that enters the network when nothing is drawn."""
    return augment.apply([image], zoom * run.config.size)[0]


def predictions(
    run: Rebuilt, models: dict[Path, Any], images: Mapping[Path, Sequence[np.ndarray]], ids, passes
) -> Predictions:
    """A run's predictions of images from `read`, by networks and images of each run's folder.

    `passes` replaces how the run itself reads its test set, where it is given.
    """
    if isinstance(run.row, Combined):
        parts = [predictions(part, models, images, ids, passes) for part in run.parts.values()]
        probabilities = run.row.combine(*parts)
    else:
        of_run, size = images[run.folder], run.config.batch_size

        def batches(augment=augment.AS_STORED, draw=0):
            for start in range(0, len(of_run), size):
                batch = of_run[start : start + size]
                # every image draws as the first: what it gets does not depend on those beside it
                index = np.zeros(len(batch), int)
                yield _cut(batch, run, augment, draw, index)

        outputs = (passes or run.row.readout.passes)(models[run.folder], batches, size)
        probabilities = np.stack([run.row.readout.probabilities(of_pass) for of_pass in outputs])
    unknown = np.full(probabilities.shape[1:], np.nan, np.float32)
    return Predictions(
        np.asarray(ids), np.asarray(ids), np.asarray(run.labels), unknown, probabilities, {}
    )


def _cut(batch, run: Rebuilt, drawn: augment.Augment, draw: int, index: np.ndarray) -> np.ndarray:
    return augment.apply(batch, run.config.size, drawn, run.seed, draw, index)


def heads(run: Rebuilt[Row], outputs: int) -> list[list[int]]:
    """The logits that are each label's own: several where the network has as many heads.

    What a label's probability does not depend on is left out; what it depends on besides, such as
    its ancestors' logits under the chain rule, is not its own.
    """
    count = len(run.labels)
    step = count if outputs % count == 0 else outputs
    rest = np.asarray(run.row.readout.probabilities(np.zeros((1, outputs))))[0]
    moved = np.asarray(run.row.readout.probabilities(np.eye(outputs))) != rest  # (outputs, labels)
    return [
        [own for own in range(label, outputs, step) if moved[own, label]] for label in range(count)
    ]


def heatmaps(
    run: Rebuilt, models: dict[Path, Any], images, labels: Sequence[int] | np.ndarray
) -> np.ndarray:
    """(images, labels, h, w) Grad-CAM of the labels; the mean of an ensemble's, each at most 1.

    Networks of different grids are brought to the finest.
    """
    import cv2

    from models import backbones, grad_cam

    found = []
    for network in run.networks:
        model = models[network.folder]
        own = heads(network, model.output_shape[-1])
        columns = sorted({logit for label in labels for logit in own[label]})
        inputs = augment.apply(images[network.folder], network.config.size)
        backbone = backbones.BACKBONES.get(model.name.removesuffix("_bilinear"))
        layer = backbone.feature_layer if backbone else "features"
        streams = [each.name for each in model.layers if each.name.endswith(layer)]
        maps = np.mean(
            [grad_cam.heatmaps(model, inputs, columns, name) for name in streams], axis=0
        )
        of_labels = [maps[:, [columns.index(logit) for logit in own[label]]] for label in labels]
        of_network = np.stack([of_heads.mean(axis=1) for of_heads in of_labels], axis=1)
        found.append(of_network / np.maximum(of_network.max(axis=(2, 3), keepdims=True), 1e-12))
    finest = max((maps.shape[2:] for maps in found), key=np.prod)[::-1]
    enlarged = [[[cv2.resize(heat, finest) for heat in each] for each in maps] for maps in found]
    return np.mean(enlarged, axis=0)


def passes_of(mc: int, tta: int, tta_augment: augment.Augment):
    """How --mc and --tta read an image; None for the run's own way."""
    if mc:
        return inference.dropout_passes(mc)
    return inference.augmented_passes(tta_augment, tta) if tta else None


def same_pixels(networks: Sequence[Rebuilt]) -> dict[tuple, list[Rebuilt]]:
    """Runs that see the same pixels, so that an image is decoded once for all of them."""
    groups: dict[tuple, list[Rebuilt]] = {}
    for network in networks:
        template = None if network.template is None else template_crop.digest(network.template)
        groups.setdefault((network.resized, template), []).append(network)
    return groups
