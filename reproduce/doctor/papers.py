"""Say what each paper needs at its own settings: time, disk space and starting weights."""

import importlib
import importlib.util
import urllib.request
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from data.datasets import DATASETS
from evaluation import published
from models import ModelError, backbones, weights
from reproduce.doctor.dataset import duration
from reproduce.doctor.machine import Finding, ok, problem, size, warning
from reproduce.engine.rows import Row, never_stop

STATE_BYTES = 16  # per parameter: float32 weights, Adam's two moments, the best epoch's weights
TIMEOUT = 10  # seconds until a server counts as out of reach


class Need(NamedTuple):
    """What a paper needs at its own settings, for one seed."""

    paper: str
    dataset: str
    images: int  # to decode
    epochs: int  # of all rows
    may_stop: bool  # whether training can end earlier
    training: int  # images per epoch
    pixels: int  # per side, of what the networks see
    cache: float  # bytes
    results: float  # bytes
    weights: dict[str, str]  # backbone -> "imagenet", "none" or a file


def needs(frame: pd.DataFrame | None = None) -> list[Need]:
    """Return the needs of every paper, or of those that run on the dataset of a frame."""
    only = frame.attrs["dataset"] if frame is not None else None
    scripts = [name for name in published.papers() if importlib.util.find_spec(f"reproduce.{name}")]
    return [
        need_of(paper, only or published.dataset(paper), frame)
        for paper in scripts
        if only is None or only in importlib.import_module(f"reproduce.{paper}").ON
    ]


def need_of(paper: str, dataset: str, frame: pd.DataFrame | None = None) -> Need:
    """Return what a paper needs on the images of a frame, or on its whole dataset."""
    script = importlib.import_module(f"reproduce.{paper}")
    config = script.Config()
    rows = [row for row in script.rows(config, dataset) if isinstance(row, Row)]
    total, training = DATASETS[dataset].images, DATASETS[dataset].training
    if frame is not None:
        total, training = len(frame), int(frame["split"].str.startswith("train").sum())
    names = [row.network.backbone for row in rows]
    parameters = sum(backbones.BACKBONES[name].parameters for name in names)
    return Need(
        paper,
        dataset,
        images=total,
        epochs=sum(row.fit.epochs for row in rows),
        may_stop=any(row.fit.stop is not never_stop for row in rows),
        training=training,
        pixels=config.size,
        cache=total * getattr(config, "resize", config.size) ** 2,
        results=parameters * STATE_BYTES,
        weights={
            name: backbones.weights_of(row.network.weights, name)
            for name, row in zip(names, rows, strict=True)
        },
    )


def time_needed(need: Need, images_a_second: float, measured_at: int) -> float:
    """Return the seconds to train all rows as if each were the network that was measured."""
    return need.epochs * need.training / images_a_second * (need.pixels / measured_at) ** 2


def training(need: Need, images_a_second: float | None, measured_at: int) -> Finding:
    """Say how long a paper's rows train, and on what."""
    text = f"{need.epochs:,} epochs of {need.training:,} images at {need.pixels} px"
    text = f"{'at most ' * need.may_stop}{text}, {size(need.cache)} of cache"
    if images_a_second:
        text = f"about {duration(time_needed(need, images_a_second, measured_at))}: {text}"
    return ok(need.paper, text)


def server_size(url: str) -> int:
    """Return the length of a file on a server; 0 if the server or the file cannot be reached."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return int(answer.headers.get("Content-Length") or 1)
    except (OSError, ValueError):  # URLError and timeouts are OSErrors
        return 0


def starting_weights(
    paper: str, wanted: Mapping[str, str], size_of: Callable[[str], int] = server_size
) -> Finding:
    """Say which weights files a paper's networks start from, and where each file is."""
    names: dict[str, list[str]] = {
        "on this machine": [],
        "will be downloaded": [],
        "out of reach": [],
    }
    here, online, missing = names.values()
    steps = []
    for name, value in wanted.items():
        try:
            path = weights.find_weights(name, value)
            download = weights.download_of(name) if value == "imagenet" else None
        except ModelError as error:
            return problem("weights", f"{paper}: {error}", "Choose another --weights.")
        if value == "none":
            continue
        if path and (download is None or weights.is_whole(path, download)):
            here.append(name)
        elif download is None:
            missing.append(name)
            steps.append(f"put the weights of {name} into {value}")
        elif length := size_of(download.url):
            online.append(f"{name} ({size(length)})")
        else:
            missing.append(name)
            steps.append(f"download {download.url} to {weights.folder() / download.file}")
    parts = [f"{', '.join(found)} {where}" for where, found in names.items() if found]
    text = f"{paper}: {'; '.join(parts) or 'none needed, its networks start from scratch'}"
    if not missing:
        return ok("weights", text)
    fix = f"For {paper}, {'; '.join(steps)}; or start from scratch with --weights none."
    return warning("weights", text, fix)
