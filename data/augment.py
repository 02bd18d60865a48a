"""Augment gray images: crops, mirror images, small affine maps, brightness and contrast.

Every draw is a function of (seed, epoch, index) alone, so the order of work, the number of threads
and resuming a run do not change it. Only NumPy and OpenCV are used, so that prediction on single
images shares this code with the training pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_DRAWS = 12  # numbers per image; add new kinds of draws at the end to keep the others unchanged
_STEP, _MIX_1, _MIX_2 = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64
)


@dataclass(frozen=True)
class Augment:
    """Ranges of the random changes; the defaults change nothing and crop the centre."""

    random_crop: bool = False  # a random window instead of the centre
    flip: bool = False  # left to right, p = 0.5
    degrees: float = 0.0  # rotation, uniform in ±degrees
    scale: float = 0.0  # magnification, uniform in 1 ± scale
    shear: float = 0.0  # horizontal shift per row, uniform in ±shear
    shift: float = 0.0  # along either axis, uniform in ±shift of the window's side
    upside_down: bool = False  # top to bottom, p = 0.5
    brightness: float = 0.0  # added, uniform in ±brightness of the range from black to white
    contrast: float = 0.0  # factor of the distance from the mean, uniform in 1 ± contrast
    one_of: bool = False  # per image one of flip (then certain), rotation, scale and shear

    @property
    def is_affine(self) -> bool:
        affine = self.degrees or self.scale or self.shear or self.shift or self.upside_down
        return bool(affine or self.one_of)


AS_STORED = Augment()
Numbers = float | np.ndarray  # one for all images, or one per image


def uniforms(seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Return (len(index), draws) float64 in [0, 1): a hash (splitmix64) of all four numbers."""
    state = _mixed(np.full(1, seed & (2**64 - 1), np.uint64) + _STEP)
    state = _mixed(state ^ (np.full(1, epoch, np.uint64) + _STEP))
    state = _mixed(state ^ np.asarray(index).astype(np.uint64))  # (images,)
    number = np.arange(1, draws + 1, dtype=np.uint64) * _STEP
    return (_mixed(state[:, None] + number) >> np.uint64(11)) * 2.0**-53


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def affine(
    size: int,
    flip: Numbers = False,
    degrees: Numbers = 0.0,
    scale: Numbers = 1.0,
    shear: Numbers = 0.0,
    *,
    left: Numbers = 0.0,
    top: Numbers = 0.0,
    upside_down: Numbers = False,
) -> np.ndarray:
    """Return (..., 2, 3) maps from output pixels of a size x size window to input pixels.

    The output at (x, y, 1) is the input at A (x, y, 1), as in `tfa.image.transform` of
    tensorflow-addons. An image is mirrored, sheared, magnified and turned anticlockwise about the
    window's centre; `left` and `top` place the window in a larger input.
    """
    flip, degrees, scale, shear, left, top, upside_down = np.broadcast_arrays(
        flip, degrees, scale, shear, left, top, upside_down
    )
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    # shear @ turn / scale, then mirror the input's x and y
    linear = np.stack([cos + shear * sin, -sin + shear * cos, sin, cos], -1) / scale[..., None]
    linear = linear.reshape(*scale.shape, 2, 2)
    linear *= np.where(np.stack([flip, upside_down], -1), -1.0, 1.0)[..., None]
    centre = (size - 1) / 2
    corner = np.stack([left, top], -1) + centre
    shift = corner - linear.sum(-1) * centre
    return np.concatenate([linear, shift[..., None]], -1)


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Apply one (2, 3) map of `affine` with bilinear interpolation; outside the image is black."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)


def shade(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """Return (image - mean) * contrast + mean + 255 * brightness of a uint8 image.

    This equals `tf.image.adjust_brightness` and `adjust_contrast` in either order, but rounds once
    and clips the values to black and white.
    """
    mean = image.mean(dtype=np.float64)
    gray = (np.arange(256) - mean) * contrast + mean + 255 * brightness
    return cv2.LUT(image, np.clip(np.rint(gray), 0, 255).astype(np.uint8))


def apply(
    images: Sequence[np.ndarray],
    crop: int,
    augment: Augment = AS_STORED,
    seed: int = 0,
    epoch: int = 0,
    index: np.ndarray | None = None,
) -> np.ndarray:
    """Return (N, crop, crop, 1) windows of N (H, W) images; `index` numbers them, from 0 if None.

    `epoch` also numbers the draws of test-time augmentation. Brightness and contrast need uint8.
    """
    count = len(images)
    draws = uniforms(seed, epoch, np.arange(count) if index is None else index, _DRAWS)
    windows = np.empty((count, crop, crop, 1), images[0].dtype)
    if augment.is_affine:
        _warp_into(windows, images, augment, draws)
    else:
        _cut_into(windows, images, augment, draws)
    if augment.brightness or augment.contrast:
        brightness = augment.brightness * (2 * draws[:, 9] - 1)
        contrast = 1 + augment.contrast * (2 * draws[:, 10] - 1)
        for window, added, factor in zip(windows[..., 0], brightness, contrast, strict=True):
            window[:] = shade(window, added, factor)
    return windows


def _corners(
    room: int, augment: Augment, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (images,) top, left and mirroring of each window."""
    top, left = np.full((2, len(draws)), room // 2)
    if augment.random_crop:
        top, left = (draws[:, :2].T * (room + 1)).astype(int)
    return top, left, (draws[:, 2] < 0.5) & augment.flip


def _warp_into(
    windows: np.ndarray, images: Sequence[np.ndarray], augment: Augment, draws: np.ndarray
) -> None:
    crop = windows.shape[1]
    top, left, flip = _corners(len(images[0]) - crop, augment, draws)
    degrees, scale, shear, right, down = (2 * draws[:, 3:8].T - 1) * np.reshape(
        [augment.degrees, augment.scale, augment.shear, *[augment.shift * crop] * 2], (5, 1)
    )
    if augment.one_of:
        chosen = (4 * draws[:, 11]).astype(int)  # 0 flip, 1 rotation, 2 scale, 3 shear
        flip = (chosen == 0) & augment.flip
        degrees, scale, shear = (
            np.where(chosen == kind, amount, 0.0)
            for kind, amount in enumerate((degrees, scale, shear), 1)
        )
    matrices = affine(
        crop,
        flip,
        degrees,
        1 + scale,
        shear,
        left=left - right,
        top=top - down,
        upside_down=(draws[:, 8] < 0.5) & augment.upside_down,
    )
    for image, matrix, window in zip(images, matrices, windows[..., 0], strict=True):
        window[:] = warp(image, matrix, crop)


def _cut_into(
    windows: np.ndarray, images: Sequence[np.ndarray], augment: Augment, draws: np.ndarray
) -> None:
    crop = windows.shape[1]
    top, left, flip = _corners(len(images[0]) - crop, augment, draws)
    windows_to_cut = zip(images, top.tolist(), left.tolist(), flip.tolist(), windows, strict=True)
    for image, y, x, mirrored, window in windows_to_cut:
        cut = image[y : y + crop, x : x + crop]
        if mirrored:
            cv2.flip(cut, 1, window)  # into `windows`; a mirrored copy by NumPy is 10x slower
        else:
            window[..., 0] = cut
