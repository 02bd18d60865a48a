"""From a dataset's folder to the images that a script runs on: read, split, decoded once."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import DataError, chestxray14, chexpert, plco, prepare, splits, template_crop
from data.cache import Cache
from data.phantom import drawing
from models import backbones, weights
from reproduce.engine import attributes, search
from reproduce.engine.rows import PHANTOMS, Combined, Data, Row, wanted

READERS = {"chestxray14": chestxray14, "chexpert": chexpert, "plco": plco}


def load(
    options,
    config,
    split: Callable,
    rows: Callable,
    *,
    phantoms: int,
    resize: int,
    template: bool = False,
    **reader_options,
) -> Data:
    """The dataset read, split by the script's `split` or by --split-file, and decoded.

    Without --data-dir so many phantoms are drawn. With a `template`, each image is cut to Config's
    size where it looks most like the mean training image. `reader_options` go to the reader.
    """
    released = read(options, config.size, phantoms, **reader_options)
    attrs = released.attrs
    attributes.check(options.by, released, options.dataset)
    frame, another_split = split(released, config)
    if options.split_file:
        given = splits.load(released, options.split_file)
        if splits.digest(given) != splits.digest(frame):
            another_split = f"the split of {options.split_file.name}"
        frame = given
    undecoded = Data(frame, None, {"dataset": attrs["dataset"]})
    check(search.table(rows, config, undecoded, options), config, options)
    window = config.size if template else None
    return decode(options, frame, attrs, another_split, resize, window)


def check(rows: Sequence[Row | Combined], config, options) -> None:
    """What can be known before any image is decoded: row names, weights to start from."""
    due = [row for row in wanted(rows, options.rows) if isinstance(row, Row)]
    for name in dict.fromkeys(row.network["backbone"] for row in due):
        weights.fetch(name, backbones.weights_of(config.weights, name))


def read(options, size: int, phantoms: int, **reader_options) -> pd.DataFrame:
    """The dataset's frame, as released; of drawn phantoms where no folder is given."""
    folder = options.data_dir
    if folder is None:
        images, drawn_size = options.phantoms or phantoms, max(size, 128)
        print(
            f"No --data-dir: drawing {images:,} phantoms in {options.dataset}'s layout. They show "
            "that everything runs; their numbers compare with nothing published.",
            flush=True,
        )
        name, drawn = f"{options.dataset}-{images}-{drawn_size}px", options.cache_dir / "phantoms"
        with safefiles.lock(
            drawn / f".{name}.lock", waiting="Another process draws them; waiting."
        ):
            folder = drawing.write(
                options.dataset, drawn / name, images, drawn_size, seed=0, prevalence_floor=0.03
            )
    read_as_released = READERS[options.dataset].read
    frame = read_as_released(folder, allow_missing=options.allow_missing, **reader_options)
    frame.attrs["folder"] = str(Path(folder).expanduser().absolute())
    return frame


def decode(
    options, frame: pd.DataFrame, attrs: dict, another_split: str, size: int, window: int | None
) -> Data:
    """Every image of a split frame decoded once; says why the results compare with nothing."""
    template = _template(options, frame, attrs, size, window) if window else None
    folder = prepare.prepare(
        attrs["folder"],
        frame["image_path"],
        options.cache_dir / "images",
        size,
        template,
        skip_corrupt=options.skip_corrupt,
    )
    cache = Cache(folder)
    decoded = frame[~frame["image_path"].isin(cache.skipped)].reset_index(drop=True)
    sets = decoded["split"].value_counts().to_dict()
    if lacking := [name for name in splits.NAMES if name not in sets]:
        raise DataError(f"No images are left for {', '.join(lacking)}; give a fuller dataset.")
    about_images = ["split", *attributes.NAMES]
    labels = decoded.drop(columns=about_images, errors="ignore").sort_values("image_path")
    facts = {
        "dataset": attrs["dataset"],
        "phantom": attrs["phantom"],
        "label_files": attrs["label_files"],
        "missing": len(attrs["missing"]),
        "corrupt": len(cache.skipped),
        "identity": {  # what decides results: neither file times nor the order of rows
            "dataset": attrs["dataset"],
            "phantom": attrs["phantom"],
            "sets": {name: sets[name] for name in splits.NAMES},
            "labels": hashlib.sha256(_bytes_of(labels)).hexdigest(),
            "split": splits.digest(decoded),
            "images": cache.fingerprint,
            "template": None if template is None else template_crop.digest(template),
        },
    }
    reason = another_split or None
    if attrs["phantom"]:
        reason = PHANTOMS
    elif not attrs["complete"] or cache.skipped:
        reason = f"subset of {len(decoded):,} images"
    centre = functools.cache(lambda: decode(options, frame, attrs, another_split, size, None))
    origin = reason, attrs["folder"], size
    return Data(decoded, cache, facts, *origin, template=template, centre=centre)


def _bytes_of(frame: pd.DataFrame) -> bytes:
    """A frame as CSV; file names may hold bytes that are not UTF-8."""
    return frame.to_csv(index=False).encode("utf-8", "surrogateescape")


def _template(options, frame: pd.DataFrame, attrs: dict, size: int, window: int) -> np.ndarray:
    """The middle of the mean training image, made once for a set of images."""
    paths = frame["image_path"][frame["split"] == "train"].tolist()
    origin = {"folder": attrs["folder"], "size": size, "window": window}
    digest = hashlib.sha256(json.dumps([origin, paths]).encode()).hexdigest()
    path = options.cache_dir / "templates" / f"{window}px-{digest[:12]}.npz"
    # images that cannot be read are named by prepare, which reads all of them
    make = functools.partial(
        template_crop.build, attrs["folder"], paths, size, window, skip_corrupt=True
    )
    return template_crop.load_or_make(path, make, **origin)
