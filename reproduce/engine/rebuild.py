"""Rebuild the network of a finished run without its dataset, and apply it to new images.

config.json holds the paper, its Config and the row's name. The script's `rows` lists the row again,
and its description must be the recorded one; weights and template are in the run's folder.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

import numpy as np

from data import augment, template_crop
from data.images import read_gray
from evaluation.predictions import Predictions
from models import inference
from reproduce import ROOT, RunError
from reproduce.engine import backend, options, runs
from reproduce.engine.options import Options
from reproduce.engine.rows import AnyRow, Combined, Row, describe

Passes = Callable[..., np.ndarray]


class Rebuilt(NamedTuple, Generic[AnyRow]):
    """One run: its row, how its images are cut, and the runs that it is made from."""

    folder: Path
    paper: str
    row: AnyRow
    config: Any  # the script's Config
    options: Options
    seed: int
    resized: int
    template: np.ndarray | None
    parts: dict[str, "Rebuilt[Any]"]
    phantom: bool

    @property
    def labels(self) -> Sequence[str]:
        """Return the labels that the run predicts; the parts of a combination have the same."""
        if isinstance(self.row, Combined):
            return next(iter(self.parts.values())).labels
        return list(self.row.task.labels)

    @property
    def networks(self) -> list["Rebuilt[Row]"]:
        """Return the run itself, or the runs with a network that it combines."""
        if isinstance(self.row, Row):
            return [self]  # type: ignore[list-item]  # narrowed by its row
        return [network for part in self.parts.values() for network in part.networks]

    @property
    def name(self) -> str:
        """Return the paper, row and seed in words."""
        return f"{self.paper} {self.row.name}, seed {self.seed}"


def run_folder(folder: Path) -> Path:
    """Return a run's folder; a row's folder may be given if one finished run is in it."""
    if (folder / runs.RECORD).exists():
        return folder
    finished = sorted(path.parent for path in folder.glob(f"seed-*/{runs.FINISHED}"))
    if len(finished) == 1:
        return finished[0]
    below = finished or sorted(path.parent for path in folder.glob(f"**/{runs.RECORD}"))
    listed = f" Below it are {', '.join(map(str, below[:3]))}." if below else ""
    raise RunError(
        f"{folder} is no run: give the folder of one row and seed, such as "
        f"results/chen2019/plco/HLCP/seed-0-1a2b3c4d.{listed}"
    )


def load(folder: Path) -> Rebuilt[Any]:
    """Return the finished run of a folder such as results/chen2019/plco/HLCP/seed-0-1a2b3c4d."""
    folder = run_folder(folder)
    record = runs.record(folder) or {}
    if not (folder / runs.FINISHED).exists():
        raise RunError(
            f"{folder} is not finished: run its script to the end first, "
            f"bash reproduce/{record.get('paper', 'NAME')}.sh with the same flags."
        )
    try:
        runs.load_predictions(folder, record["digest"])
        script, settings = _script(record["paper"]), record["settings"]
        config = script.Config(**record["config"])
        options.check(config)
        by_name = {row.name: row for row in script.rows(config, record["dataset"])}
        row = by_name[record["row"]]
        _check_same(settings, row)
        if isinstance(row, Row):  # the run's own weights are in its folder
            network = dataclasses.replace(row.network, weights="none")
            row = dataclasses.replace(row, network=network)
        return Rebuilt(
            folder,
            record["paper"],
            row,
            config,
            Options(fast=bool(record["options"]["fast"])),
            int(settings["seed"]),
            resized=int(record["resized"]),
            template=runs.template_of(folder),
            parts={name: load(folder / path) for name, path in record["parts"].items()},
            phantom=bool(settings["data"]["phantom"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{folder / runs.RECORD} does not fit this version of the suite "
            f"({type(error).__name__}: {error}): train that row again in another --results-dir."
        ) from error


def _check_same(settings: dict[str, Any], row: Row | Combined) -> None:
    """Raise a RunError if the script's row is not the one that the run was trained by."""
    parts = describe(row)
    if "of" in settings and "values" in settings:  # a search: its row is one of the candidates
        return
    for name in ("task", "loss", "network", "readout", "of", "combine"):
        recorded, now = settings.get(name), parts.get(name)
        if name == "network" and recorded and now:  # weights are recorded by their hash
            recorded, now = recorded | {"weights": ""}, now | {"weights": ""}
        if recorded != now:
            raise ValueError(f"the {name} of {row.name} is another one now")


def _script(paper: object) -> Any:
    """Import and return a paper's script; nothing else is imported, whatever a file says."""
    if not re.fullmatch(r"[a-z]\w*", str(paper)) or not (ROOT / f"reproduce/{paper}.sh").is_file():
        raise ValueError(f"{paper!r} is no paper of this suite")
    return importlib.import_module(f"reproduce.{paper}")


def network(run: Rebuilt[Row]) -> Any:
    """Return the run's trained Keras network; a row of 0 epochs has its parent's weights."""
    from models import classifier
    from reproduce.engine import networks

    trained = run if run.row.fit.epochs else run.parts[run.row.start_from]
    model = networks.build(run.row, run.options.fast)
    classifier.load_weights(model, runs.weights_of(trained.folder))
    return model


def networks(run: Rebuilt[Any]) -> dict[Path, Any]:
    """Return the trained network of every run that this one is or combines, by its folder."""
    backend.start("any")
    return {each.folder: network(each) for each in run.networks}


def read(run: Rebuilt[Any], path: Path, zoom: int = 1) -> np.ndarray:
    """Return an image as the run's cache holds it, or `zoom` times as large for display."""
    image = read_gray(path, run.resized)
    if run.template is None:
        window = image.shape[0], 0, 0
    else:
        window = len(run.template), *template_crop.locate(image, run.template)
    side, top, left = (zoom * pixels for pixels in window)
    if zoom > 1:
        image = read_gray(path, zoom * run.resized)
    cut: np.ndarray = np.ascontiguousarray(image[top : top + side, left : left + side])
    return cut


def seen(run: Rebuilt[Row], image: np.ndarray, zoom: int = 1) -> np.ndarray:
    """Return the part of an image from `read` that enters the network without augmentation."""
    part: np.ndarray = augment.apply([image], zoom * run.row.network.size)[0]
    return part


def predictions(
    run: Rebuilt[Any],
    models: dict[Path, Any],
    images: Mapping[Path, Sequence[np.ndarray]],
    ids: Sequence[Any],
    passes: Passes | None,
) -> Predictions:
    """Return a run's predictions of images from `read`; networks and images by run folder.

    `passes`, if given, replaces the way that the run reads its test set.
    """
    if isinstance(run.row, Combined):
        parts = [predictions(part, models, images, ids, passes) for part in run.parts.values()]
        probabilities = run.row.combine(*parts)
    else:
        of_run, size = images[run.folder], run.row.fit.batch_size

        def batches(
            augment: augment.Augment = augment.AS_STORED, draw: int = 0
        ) -> Iterator[np.ndarray]:
            for start in range(0, len(of_run), size):
                batch = of_run[start : start + size]
                # every image draws as the first does, so its neighbours do not change its result
                index = np.zeros(len(batch), int)
                yield _cut(batch, run, augment, draw, index)

        outputs = (passes or run.row.readout.passes)(models[run.folder], batches, size)
        probabilities = np.stack([run.row.readout.probabilities(of_pass) for of_pass in outputs])
    unknown = np.full(probabilities.shape[1:], np.nan, np.float32)
    return Predictions(
        np.asarray(ids), np.asarray(ids), np.asarray(run.labels), unknown, probabilities, {}
    )


def _cut(
    batch: Sequence[np.ndarray],
    run: Rebuilt[Row],
    drawn: augment.Augment,
    draw: int,
    index: np.ndarray,
) -> np.ndarray:
    return augment.apply(batch, run.row.network.size, drawn, run.seed, draw, index)


def heads(run: Rebuilt[Row], outputs: int) -> list[list[int]]:
    """Return the logits that belong to each label: one per head of the network.

    Logits that do not change the label's probability are left out. Logits of other labels that do,
    such as those of ancestors under the chain rule, do not belong to the label.
    """
    count = len(run.labels)
    step = count if outputs % count == 0 else outputs
    rest = np.asarray(run.row.readout.probabilities(np.zeros((1, outputs))))[0]
    moved = np.asarray(run.row.readout.probabilities(np.eye(outputs))) != rest  # (outputs, labels)
    return [
        [own for own in range(label, outputs, step) if moved[own, label]] for label in range(count)
    ]


def heatmaps(
    run: Rebuilt[Any],
    models: dict[Path, Any],
    images: Mapping[Path, Sequence[np.ndarray]],
    labels: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Return (images, labels, h, w) Grad-CAM of the labels, the mean over an ensemble, at most 1.

    Maps of networks with different grids are enlarged to the finest grid.
    """
    import cv2

    from models import grad_cam

    of_networks = []
    for network in run.networks:
        model = models[network.folder]
        own = heads(network, model.output_shape[-1])
        columns = sorted({logit for label in labels for logit in own[label]})
        inputs = augment.apply(images[network.folder], network.row.network.size)
        streams = map_layers(model)
        maps = np.mean(
            [grad_cam.heatmaps(model, inputs, columns, name) for name in streams], axis=0
        )
        of_heads = [maps[:, [columns.index(logit) for logit in own[label]]] for label in labels]
        of_labels = np.stack([each.mean(axis=1) for each in of_heads], axis=1)
        largest = of_labels.max(axis=(2, 3), keepdims=True)
        of_networks.append(of_labels / np.maximum(largest, 1e-12))
    grid = max((maps.shape[2:] for maps in of_networks), key=np.prod)[::-1]
    enlarged = [
        [[cv2.resize(heat, grid) for heat in image] for image in maps] for maps in of_networks
    ]
    mean: np.ndarray = np.mean(enlarged, axis=0)
    return mean


def map_layers(model: Any) -> list[str]:
    """Return the names of the layers whose maps Grad-CAM shows, one per stream of the network.

    It is the convolution of the head, if there is one, or else the last map of the backbone.
    """
    from models import backbones, classifier

    backbone = backbones.BACKBONES.get(model.name.removesuffix("_bilinear"))
    names = [layer.name for layer in model.layers]
    in_head = [name for name in names if name == classifier.HEAD_MAP]
    layer = backbone.feature_layer if backbone else "features"
    return in_head or [name for name in names if name.endswith(layer)]


def passes_of(mc: int | None, tta: int | None, tta_augment: augment.Augment) -> Passes | None:
    """Return the passes of --mc or --tta, or None for the run's own."""
    if mc:
        return inference.DropoutPasses(mc)
    return inference.AugmentedPasses(tta_augment, tta) if tta else None


def same_pixels(networks: Sequence[Rebuilt[Row]]) -> dict[tuple[Any, ...], list[Rebuilt[Row]]]:
    """Group the runs that see the same pixels, so that an image is decoded once per group."""
    groups: dict[tuple[Any, ...], list[Rebuilt[Row]]] = {}
    for network in networks:
        template = None if network.template is None else template_crop.digest(network.template)
        groups.setdefault((network.resized, template), []).append(network)
    return groups
