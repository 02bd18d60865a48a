"""Pham 2021's lung crop: the 224 x 224 window of a 256 x 256 image that best matches a template.

The paper states neither the template nor the similarity. Here the template is the centre of the
mean training image, and the similarity is the normalised correlation of windows minus their means
    r(x, y) = sum_ij T'(i, j) I'(x+i, y+j) / sqrt(sum T'^2 sum I'^2)
which is what `cv2.matchTemplate(..., cv2.TM_CCOEFF_NORMED)` computes.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

import safefiles
from data import BadImage, DataError
from data.images import read_gray

VERSION = 1


def build(
    root,
    image_paths: Iterable[str],
    size: int = 256,
    crop: int = 224,
    limit: int = 2048,
    skip_corrupt: bool = False,
) -> np.ndarray:
    """Return the (crop, crop) uint8 centre of the mean of training images.

    Read at most `limit` of them, evenly spaced: the mean is then accurate to about one gray level,
    while reading all of ChestX-ray14 would take as long as preparing it.
    """
    paths = list(image_paths)
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int))

    def read(k: int) -> np.ndarray | None:
        try:
            return read_gray(Path(root) / paths[k], size, radiograph=True)
        except BadImage:
            if skip_corrupt:
                return None
            raise

    total, count = np.zeros((size, size), np.int64), 0
    with ThreadPoolExecutor() as pool:
        for image in pool.map(read, chosen):
            if image is not None:
                total, count = total + image, count + 1
    if not count:
        raise DataError(f"A template needs at least one training image; {root} gave none.")
    start = (size - crop) // 2
    mean = total[start : start + crop, start : start + crop] / count
    return mean.round().astype(np.uint8)


def save(path, template: np.ndarray, **origin) -> None:
    """Save a template with its version, its hash and the facts about its origin."""
    about = {"version": VERSION, "sha256": digest(template), **origin}
    with safefiles.whole(path) as partial, partial.open("wb") as file:
        np.savez(file, template=template, about=json.dumps(about))


def load(path) -> np.ndarray:
    """Return a saved (crop, crop) uint8 template."""
    try:
        with np.load(path) as saved:
            template, about = saved["template"], json.loads(str(saved["about"]))
        known = about["version"], about["sha256"]
    except safefiles.DAMAGED_ARCHIVE as error:
        raise DataError(f"{path} holds no template; delete it and run again.") from error
    if known != (VERSION, digest(template)) or template.ndim != 2 or template.dtype != np.uint8:
        raise DataError(f"{path} holds a damaged template or one of another version; delete it.")
    return template


def load_or_make(path, make: Callable[[], np.ndarray], **origin) -> np.ndarray:
    """Return the template saved at `path`; make and save it if it is missing or damaged."""
    path = Path(path)
    if path.exists():
        try:
            return load(path)
        except DataError:
            print(f"{path} is damaged; the template is made again.", file=sys.stderr, flush=True)
    save(path, make(), **origin)
    return load(path)


def digest(template: np.ndarray) -> str:
    return hashlib.sha256(template.tobytes()).hexdigest()


def crop(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return the window of the image, of the template's size, that matches the template best."""
    top, left = locate(image, template)
    height, width = template.shape
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def locate(image: np.ndarray, template: np.ndarray) -> tuple[int, int]:
    """Return (top, left) of the best match."""
    _, _, _, (left, top) = cv2.minMaxLoc(similarity(image, template))
    return top, left


def similarity(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return TM_CCOEFF_NORMED of every window; flat windows give 0.

    OpenCV transforms the template again for each image. Doing so once, with the image's own size as
    the period, halves the time (bench/input.py).
    """
    spectrum, norm = _spectrum(template.tobytes(), template.shape, image.shape)
    product = cv2.mulSpectrums(cv2.dft(image.astype(np.float32)), spectrum, 0, conjB=True)
    flags = cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT
    rows, columns = np.subtract(image.shape, template.shape) + 1
    matches = cv2.dft(product, flags=flags)[:rows, :columns]
    sums, squares = (_windows(table, template.shape) for table in cv2.integral2(image))
    variation = squares - sums.astype(np.float64) ** 2 / template.size
    flat = variation < 0.5  # sums of integers are exact: below 1, the window is constant
    return np.where(flat, 0, matches / (norm * np.sqrt(np.where(flat, 1, variation))))


@functools.lru_cache(maxsize=4)
def _spectrum(template: bytes, shape: tuple, padded: tuple) -> tuple[np.ndarray, float]:
    flat = np.frombuffer(template, np.uint8).reshape(shape).astype(np.float64)
    flat -= flat.mean()
    period = np.zeros(padded, np.float32)
    period[: shape[0], : shape[1]] = flat
    return cv2.dft(period), max(float(np.sqrt((flat**2).sum())), 1e-6)


def _windows(table: np.ndarray, shape: tuple) -> np.ndarray:
    height, width = shape
    lower, upper = table[height:], table[:-height]
    return lower[:, width:] - lower[:, :-width] - upper[:, width:] + upper[:, :-width]
