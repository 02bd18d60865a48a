"""Read and download ChestMNIST: ChestX-ray14 in one .npz of 28, 64, 128 or 224 pixels.

MedMNIST v2 (Yang et al. 2023, https://medmnist.com, CC BY 4.0) resized all 112,120 images from the
originals and split them as the public CheXNet lists do. The file names no image and no patient. Its
labels are compared row by row with those lists; only if all 14 columns of all rows agree are the
rows taken to be the lists' images.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

import downloads
import safefiles
from data import DataError, chestxray14, containers, labels, public_lists, reading
from data.datasets import DATASETS

DATASET = DATASETS["chestmnist"]
COMPLETE = DATASET.complete  # images per split
ADDRESS = "https://zenodo.org/records/10519652/files"
FILES = {  # pixels -> name, MD5
    28: ("chestmnist.npz", "02c8a6516a18b556561a56cbdd36c4a8"),
    64: ("chestmnist_64.npz", "9de6cd0b934ebb5b7426cfba5efbae16"),
    128: ("chestmnist_128.npz", "db107e5590b27930b62dbaf558aebee3"),
    224: ("chestmnist_224.npz", "45bd33e6f06c3e8cdb481c74a89152aa"),
}
_NAME = re.compile(r"chestmnist(?:_(\d+))?\.npz")
INDEX, INDEX_COLUMNS = "chestmnist*.csv", ("split", "index", "image_id")  # MedMNIST's own table


def download(
    folder: Path,
    size: int,
    base_url: str | None = None,
    keep_archives: bool = False,  # noqa: ARG001  the file is the dataset
) -> Path:
    """Download the file for images of `size` pixels into `folder`; return its path."""
    name, expected = FILES[pixels_for(size, FILES)]
    url = f"{(base_url or ADDRESS).rstrip('/')}/{name}?download=1"
    by_hand = f"Or download {ADDRESS}/{name} yourself, and give the file with --data-dir."
    return downloads.fetch(url, folder / name, expected, by_hand)


def pixels_for(size: int, available: Iterable[int]) -> int:
    """Return the smallest available number of pixels that is not below `size`, or the largest."""
    pixels = sorted(available)
    return next((each for each in pixels if each >= size), pixels[-1])


def read(
    path: str | Path,
    allow_missing: bool = False,  # noqa: ARG001  one file has all images or is damaged
    size: int = 224,
) -> pd.DataFrame:
    """Return one row per image, in the order of the file: train, val, test.

    `path` is an .npz or a folder with one; of several, the one for images of `size` pixels is read.
    Columns: image_path, patient_id, split (train, val, test), then 15 labels, 0 or 1. Where the
    rows could be named, also sex, age and view if ChestX-ray14's label file lies in the folder.
    Otherwise every image is a patient of its own, and attrs["patients_unknown"] says why.
    """
    file = _find(path, size)
    values = {split: _labels(file, split) for split in COMPLETE}
    counts = {split: len(each) for split, each in values.items()}
    frame = pd.DataFrame(
        {
            "split": np.repeat(list(counts), list(counts.values())),
            "row": np.concatenate([np.arange(count) for count in counts.values()]),
        }
    )
    findings = np.concatenate(list(values.values()))
    names = _names(frame, findings, file)
    number = frame["row"].astype(str)
    about = {"image_path": file.name + "/" + frame["split"] + "/" + number}
    if isinstance(names, str):
        about["patient_id"] = frame["split"] + "-" + number
    else:
        about["image_path"] += "/" + names
        about["patient_id"] = names.str[:8].str.lstrip("0")
        about |= _attributes(names, file.parent)
    about |= {"split": frame["split"]}
    released = pd.DataFrame(findings.astype(np.float32), columns=list(labels.CHESTXRAY14))
    released[labels.NO_FINDING] = np.float32(1) - released.max(axis=1)
    frame = pd.concat([pd.DataFrame(about), released], axis=1)
    frame.attrs |= {
        "dataset": DATASET.name,
        "complete": counts == COMPLETE,
        "label_files": {file.name: hashlib.sha256(findings.tobytes()).hexdigest()},
        "images": len(frame),
        "missing": [],
        "phantom": any(file.parent.glob("phantom*.json")),
        "folder": str(file.parent.absolute()),
    }
    if isinstance(names, str):
        frame.attrs["patients_unknown"] = names
    return frame


def present(path: str | Path) -> list[int]:
    """Return the pixels of the files in a folder, or of one file, by their names."""
    path = Path(path).expanduser()
    names = [path.name] if path.is_file() else os.listdir(reading.open_folder(path))
    matches = [match for name in sorted(names) if (match := _NAME.fullmatch(name))]
    return sorted(int(match[1] or 28) for match in matches)


def holds(path: Path) -> bool:
    """Return True if a file is an .npz with the labels of ChestMNIST."""
    try:
        with np.load(path) as arrays:
            return "test_labels" in arrays.files
    except safefiles.DAMAGED_ARCHIVE:
        return False


def _find(path: str | Path, size: int) -> Path:
    """Return the .npz to read; raise a DataError if there is none."""
    path = Path(path).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file():
        return path
    folder = reading.open_folder(path)
    pixels = present(folder)
    if not pixels:
        names = [name for name, _ in FILES.values()]
        lacking = "chestmnist*.npz; --download gets it"
        raise reading.layout_error(folder, DATASET.title, lacking, names, names)
    chosen = pixels_for(size, pixels)
    return folder / ("chestmnist.npz" if chosen == 28 else f"chestmnist_{chosen}.npz")


def _labels(file: Path, split: str) -> np.ndarray:
    """Return (images, 14) of a split; raise a DataError unless its arrays are as published."""
    again = "get the file again, for instance with --download"
    try:
        with np.load(file) as arrays:
            names = {f"{split}_images", f"{split}_labels"}
            if lacking := sorted(names - {*arrays.files}):
                raise DataError(
                    f"{file} has no {' and no '.join(lacking)}, but {', '.join(arrays.files)}: it "
                    "is not ChestMNIST."
                )
            values = arrays[f"{split}_labels"]
        shape = containers.shape(file, f"{split}_images")
    except safefiles.DAMAGED_ARCHIVE as error:
        raise DataError(f"{file} is damaged or cut short ({error}): {again}.") from error
    if values.ndim != 2 or values.shape[1] != 14 or not np.isin(values, (0, 1)).all():
        raise DataError(f"{file} has other {split}_labels than 14 columns of 0 and 1: {again}.")
    if len(shape) != 3 or shape[0] != len(values) or shape[1] != shape[2]:
        raise DataError(
            f"{file} has {split}_images of shape {shape} for {len(values):,} labels, not one "
            f"square gray image for each: {again}."
        )
    return values.astype(np.uint8)


def _names(frame: pd.DataFrame, findings: np.ndarray, file: Path) -> pd.Series | str:
    """Return each row's image name, or why the rows cannot be named."""
    listed = public_lists.images().assign(row=lambda table: table.groupby("chexnet").cumcount())
    listed = listed.rename(columns={"chexnet": "split"})
    index = _index(file.parent)
    if index is not None:
        named = frame.merge(index, "left", ["split", "row"])
        table = named.merge(listed.drop(columns=["split", "row"]), "left", "image")
        source = "the table of indices beside it"
    else:
        table = frame.merge(listed, "left", ["split", "row"])
        source = "the public lists"
        if len(frame) != len(listed):
            return f"{len(frame):,} rows instead of the public lists' {len(listed):,}"
    unnamed = (table["image"].isna() | table["findings"].isna()).to_numpy()
    if unnamed.any():
        first = frame.iloc[int(unnamed.argmax())]
        return f"{source} name no image for row {first['row']} of {first['split']}"
    differ = (public_lists.label_matrix(table["findings"]) != findings).any(axis=1)
    if differ.any():
        first = frame.iloc[int(differ.argmax())]
        return (
            f"{differ.sum():,} of {len(frame):,} rows have other labels than {source}, first row "
            f"{first['row']} of {first['split']}"
        )
    return table["image"]


def _index(folder: Path) -> pd.DataFrame | None:
    """Return split, row and image of MedMNIST's table, if it lies in the folder."""
    paths = [path for path in sorted(folder.glob(INDEX)) if _has_columns(path)]
    if not paths:
        return None
    table = reading.read_table(paths[0], INDEX_COLUMNS)
    images = table["image_id"].str.extract(r"(\d{8}_\d{3})", expand=False) + ".png"
    split = table["split"].str.lower().replace({"validation": "val"})
    rows = pd.to_numeric(table["index"], errors="coerce")
    return pd.DataFrame({"split": split, "row": rows, "image": images}).drop_duplicates(
        ["split", "row"]
    )


def _has_columns(path: Path) -> bool:
    """Return False for another CSV, such as predictions in MedMNIST's form."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return {*INDEX_COLUMNS} <= {*file.readline().strip().split(",")}


def _attributes(names: pd.Series, folder: Path) -> dict[str, np.ndarray]:
    """Return sex, age and view by ChestX-ray14's label file, if it lies in the folder."""
    path = next((path for path in chestxray14.label_files(folder) if path.is_file()), None)
    if path is None:
        return {}
    columns = chestxray14.ATTRIBUTES
    table = reading.read_table(path, ("Image Index", *columns.values()))
    table = table.drop_duplicates("Image Index").set_index("Image Index")
    return {key: names.map(table[column]).fillna("").to_numpy() for key, column in columns.items()}
