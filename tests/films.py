"""Write small test images to disk."""

from pathlib import Path

import cv2
import numpy as np


def make_images(root: Path, count: int, side: int = 96) -> list[str]:
    (root / "nested").mkdir(parents=True)
    rng = np.random.default_rng(count)
    pictures = rng.integers(0, 256, (7, side, side), np.uint8)
    files = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    names = sorted(f"{'nested/' if k % 3 == 0 else ''}{k:04d}.png" for k in range(count))
    for k, name in enumerate(names):
        (root / name).write_bytes(files[k % 7])
    return names


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
