"""Draw a heatmap over its image and find its maximum."""

import cv2
import matplotlib
import numpy as np

CLIP = 0.5  # share of the maximum below which nothing is shown (Asadi 2025, Figure 3)


def peak(heat: np.ndarray) -> tuple[float, float] | None:
    """Return (x, y) of the maximum as fractions of the image; None if the map is 0 everywhere."""
    if not heat.max() > 0:
        return None
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    height, width = heat.shape
    return (column + 0.5) / width, (row + 0.5) / height


def scaled(heat: np.ndarray, size: int, clip: float = CLIP) -> np.ndarray:
    """Return the map enlarged to (size, size), as a share of its maximum, and 0 below `clip`."""
    large = cv2.resize(heat.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    share = np.clip(large / max(float(large.max()), 1e-12), 0, 1)
    return np.where(share < clip, 0, share)


def overlay(image: np.ndarray, heat: np.ndarray, clip: float = CLIP, steps: int = 5) -> np.ndarray:
    """Return a gray image under its map as (H, H, 3) uint8.

    The map has `steps` discrete colours, as in the paper, because exact values cannot be read from
    an overlay. Values below `clip` are transparent.
    """
    gray = np.repeat(image.reshape(*image.shape[:2], 1).astype(np.float32), 3, axis=2)
    share = scaled(heat, len(image), clip)
    level = np.floor((share - clip) / (1 - clip) * steps).clip(0, steps - 1)
    colours = matplotlib.colormaps["inferno"](0.35 + 0.6 * level / max(steps - 1, 1))[..., :3] * 255
    weight = np.where(share > 0, 0.5, 0)[..., None]
    return ((1 - weight) * gray + weight * colours).round().astype(np.uint8)
