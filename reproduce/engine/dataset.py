"""Read a dataset, split it, and decode its images once for all rows of a script."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import safefiles
from data import DataError, prepare, splits, template_crop
from data.cache import Cache
from data.datasets import DATASETS
from data.phantom import drawing
from models import backbones, weights
from reproduce.engine import attributes
from reproduce.engine.options import Options
from reproduce.engine.rows import PHANTOMS, Combined, Data, Row

FEW_ENLARGED = 0.01  # share of images smaller than they are shown that a comparison bears


def load(
    options: Options,
    config: Any,
    split: Callable[[pd.DataFrame, Any], tuple[pd.DataFrame, str]],
    table: Sequence[Row | Combined] = (),
    *,
    phantoms: int,
    resize: int,
    template: bool = False,
    **reader_options: Any,
) -> Data:
    """Return the dataset, split by the script's `split` or by --split-file, and decoded.

    Without --data-dir, generate so many phantoms. With `template`, cut each image to Config's size
    where it looks most like the mean training image. Pass `reader_options` to the reader.
    """
    released = read(options, config.size, phantoms, resize, **reader_options)
    attrs = released.attrs
    attributes.check(options.by, released, options.dataset)
    try:
        frame, another_split = split(released, config)
    except splits.PatientsUnknown:
        frame = splits.as_released(released)
        another_split = "the dataset's own split, because its patients are unknown"
    if options.split_file:
        given = splits.load(released, options.split_file)
        if splits.digest(given) != splits.digest(frame):
            another_split = f"the split of {options.split_file.name}"
        frame = given
    fetch_weights(table)
    window = config.size if template else None
    return decode(options, frame, attrs, another_split, resize, window)


def fetch_weights(table: Sequence[Row | Combined]) -> None:
    """Get the initial weights of all rows, before hours are spent on decoding images."""
    for network in dict.fromkeys(row.network for row in table if isinstance(row, Row)):
        weights.fetch(network.backbone, backbones.weights_of(network.weights, network.backbone))


def read(
    options: Options, size: int, phantoms: int, resize: int, **reader_options: Any
) -> pd.DataFrame:
    """Return the dataset's frame, as released; of phantoms if no folder is given."""
    dataset = DATASETS[options.dataset]
    if options.download and not options.only_train:
        target = Path(options.data_dir or options.cache_dir / "downloads" / dataset.name)
        target = target.expanduser()
        options.data_dir = str(target.parent if target.suffix == ".npz" else target)
        dataset.get(Path(options.data_dir), resize, options.base_url, options.keep_archives)
    if options.data_dir is not None:
        folder = Path(options.data_dir)
    else:
        images, drawn_size = options.phantoms or phantoms, max(size, 128)
        print(
            f"No --data-dir: generating {images:,} phantoms (synthetic radiographs) in the layout "
            f"of {options.dataset}. They show that everything runs; their numbers cannot be "
            "compared with published ones.",
            flush=True,
        )
        name, drawn = f"{options.dataset}-{images}-{drawn_size}px", options.cache_dir / "phantoms"
        with safefiles.lock(
            drawn / f".{name}.lock", waiting="Another process generates them; waiting."
        ):
            folder = drawing.write(
                options.dataset, drawn / name, images, drawn_size, seed=0, prevalence_floor=0.03
            )
    if dataset.sizes:
        reader_options["size"] = resize
    frame = dataset.read(folder, allow_missing=options.allow_missing, **reader_options)
    frame.attrs.setdefault("folder", str(folder.expanduser().absolute()))
    return splits.of_patients(frame, options.patients) if options.patients else frame


def decode(
    options: Options,
    frame: pd.DataFrame,
    attrs: dict[str, Any],
    another_split: str,
    size: int,
    window: int | None,
) -> Data:
    """Return a split frame with every image decoded once, and why it is not comparable."""
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
        raise DataError(f"No images are left for {', '.join(lacking)}: give a larger dataset.")
    about_images = ["split", *attributes.NAMES]
    labels = decoded.drop(columns=about_images, errors="ignore").sort_values("image_path")
    facts = {
        "dataset": attrs["dataset"],
        "phantom": attrs["phantom"],
        "label_files": attrs["label_files"],
        "missing": len(attrs["missing"]),
        "corrupt": len(cache.skipped),
        "patients": attrs.get("patients"),
        "source": {"shortest_side": cache.shortest, "enlarged": cache.enlarged},
        "identity": {  # what decides results; file times and the order of rows do not
            "dataset": attrs["dataset"],
            "phantom": attrs["phantom"],
            "sets": {name: sets[name] for name in splits.NAMES},
            "labels": hashlib.sha256(_bytes_of(labels)).hexdigest(),
            "split": splits.digest(decoded),
            "images": cache.fingerprint,
            "template": None if template is None else template_crop.digest(template),
        },
    }
    reason = _not_comparable(attrs, another_split, cache, len(decoded))
    centre = functools.cache(lambda: decode(options, frame, attrs, another_split, size, None))
    origin = reason, attrs["folder"], size
    note = ""
    if why := attrs.get("patients_unknown"):
        note = f"patients unknown ({why}): intervals are over images"
    return Data(decoded, cache, facts, *origin, template=template, centre=centre, note=note)


def _not_comparable(
    attrs: dict[str, Any], another_split: str, cache: Cache, images: int
) -> str | None:
    """Return why results on these images cannot be compared with published ones."""
    if attrs["phantom"]:
        return PHANTOMS
    reasons = [another_split]
    if not attrs["complete"] or cache.skipped:
        reasons = [f"subset of {images:,} images"]
    if chosen := attrs.get("patients"):
        reasons.append(
            f"patients {chosen['given']}: {chosen['count']:,}, list {chosen['sha256'][:8]}"
        )
    if cache.enlarged > FEW_ENLARGED * len(cache):
        reasons.append(f"images enlarged from {cache.shortest} to {cache.resized} px")
    return "; ".join(filter(None, reasons)) or None


def _bytes_of(frame: pd.DataFrame) -> bytes:
    """Return a frame as CSV; file names may hold bytes that are not UTF-8."""
    text: str = frame.to_csv(index=False)
    return text.encode("utf-8", "surrogateescape")


def _template(
    options: Options, frame: pd.DataFrame, attrs: dict[str, Any], size: int, window: int
) -> np.ndarray:
    """Return the middle of the mean training image, computed once per set of images."""
    paths = frame["image_path"][frame["split"] == "train"].tolist()
    origin = {"folder": attrs["folder"], "size": size, "window": window}
    digest = hashlib.sha256(json.dumps([origin, paths]).encode()).hexdigest()
    path = options.cache_dir / "templates" / f"{window}px-{digest[:12]}.npz"
    # prepare reads all images and names those that cannot be read
    make = functools.partial(
        template_crop.build, attrs["folder"], paths, size, window, skip_corrupt=True
    )
    return template_crop.load_or_make(path, make, **origin)
