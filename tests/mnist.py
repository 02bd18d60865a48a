"""Write ChestMNIST files: small ones of real or given images, and one as long as the released."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from data import public_lists

SETS = ("train", "val", "test")


def listed(names=None) -> pd.DataFrame:
    """Return the public lists' images, or those of them with these names, in list order."""
    images = public_lists.images()
    return images if names is None else images[images["image"].isin(names)]


def write(path: Path, images: pd.DataFrame, pixels_of) -> Path:
    """Write an .npz of listed images, whose pixels `pixels_of(names)` returns as one array."""
    arrays = {}
    for name in SETS:
        part = images[images["chexnet"] == name]
        arrays[f"{name}_images"] = pixels_of(part["image"].tolist())
        arrays[f"{name}_labels"] = public_lists.label_matrix(part["findings"])
    np.savez_compressed(path, **arrays)
    return path


def change(path: Path, **changed: np.ndarray) -> None:
    """Replace arrays of an .npz."""
    with np.load(path) as arrays:
        content = dict(arrays) | changed
    np.savez_compressed(path, **content)


def write_index(path: Path, images: pd.DataFrame) -> Path:
    """Write the table of indices that MedMNIST offers for its files."""
    rows = images.groupby("chexnet").cumcount()
    table = {"split": images["chexnet"], "index": rows, "image_id": images["image"]}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def blank(names, size: int = 28) -> np.ndarray:
    """Return one array of black images."""
    return np.zeros((len(names), size, size), np.uint8)


def from_folder(folder: Path, size: int):
    """Return a function that reads named images of a folder, area-resized."""

    def pixels_of(names) -> np.ndarray:
        images = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in names]
        return np.stack(
            [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images]
        )

    return pixels_of
