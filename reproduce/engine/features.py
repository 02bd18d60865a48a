"""Compute the outputs of a network's frozen layers once, and train its last layer on them.

Linear probing passes the same features to the same layer in every epoch. They are computed once per
network, set of weights and images, in parts of 1,024 images, so that an interrupted computation is
resumed, and other seeds and losses use them again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import safefiles
from data import pipeline
from data.progress import with_progress
from models import inference
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Row, Run, describe

PART = 1024  # images per file


class Batches(keras.utils.PyDataset):
    """Batches of an array's rows, with targets if they are given."""

    def __init__(self, values: np.ndarray, targets: np.ndarray | None, batch_size: int) -> None:
        super().__init__()
        self.values, self.targets, self.batch_size = values, targets, batch_size

    def __len__(self) -> int:
        whole, rest = divmod(len(self.values), self.batch_size)
        return whole + bool(rest)

    def __getitem__(self, batch: int) -> Any:
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        if self.targets is None:
            return self.values[rows]
        return self.values[rows], self.targets[rows]

    def __iter__(self) -> Iterator[Any]:
        return (self[batch] for batch in range(len(self)))


def split(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Return the frozen part of a compiled network, and its last layer, compiled alike.

    Both share the layers of the network, so what the last layer learns is learnt there too.
    """
    pooled = model.layers[-1].input
    entry = keras.Input(pooled.shape[1:], dtype=pooled.dtype)
    head = keras.Model(entry, model.layers[-1](entry), name=f"{model.name}_head")
    head.compile(model.optimizer, model.loss, jit_compile=model.jit_compile)
    return keras.Model(model.input, pooled, name=f"{model.name}_trunk"), head


def compute(run: Run[Row], trunk: keras.Model, data: Data, options: Options) -> np.ndarray:
    """Return the features of all images, (images, features), computed unless they are on disk."""
    row = run.row
    paths = data.frame["image_path"]
    indices = data.pixels.indices(paths)
    weights = hashlib.sha256()
    for array in trunk.get_weights():
        weights.update(array.tobytes())
    about = [describe(row.network), weights.hexdigest(), data.pixels.fingerprint, paths.tolist()]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = options.cache_dir / "features" / f"{row.network.backbone}-{digest}"
    waiting = f"Another process is computing {folder}; waiting for it."
    with safefiles.lock(folder.parent / f".{folder.name}.lock", waiting):
        folder.mkdir(exist_ok=True)
        safefiles.remove_parts(folder)
        starts = range(0, len(indices), PART)
        parts = {start: folder / f"{start:07d}.npy" for start in starts}
        values = {start: _load(parts[start]) for start in starts}
        missing = [start for start in starts if values[start] is None]
        done = len(indices) - sum(len(indices[start : start + PART]) for start in missing)
        computed = (_compute(run, trunk, data, indices[start : start + PART]) for start in missing)
        shown = with_progress(computed, "features", len(indices), done=done, images=len)
        for start, part in zip(missing, shown, strict=True):
            with safefiles.whole(parts[start]) as partial, partial.open("wb") as file:
                np.save(file, part)
            values[start] = part
    return np.concatenate([part for part in values.values() if part is not None])


def _compute(run: Run[Row], trunk: keras.Model, data: Data, indices: np.ndarray) -> np.ndarray:
    batch_size, size = run.row.fit.batch_size, run.row.network.size
    batches = pipeline.ordered_batches(data.pixels, indices, batch_size=batch_size, crop=size)
    return inference.logits(trunk, batches, batch_size)


def _load(path: Path) -> np.ndarray | None:
    """Return the saved array; None if there is none or it is damaged."""
    try:
        saved: np.ndarray = np.load(path)
        return saved
    except FileNotFoundError:
        return None
    except safefiles.DAMAGED_ARCHIVE:
        os.unlink(path)
        return None
