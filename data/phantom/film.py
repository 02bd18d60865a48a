"""Drawing tools of the phantoms: smooth curves, soft masks, pose and exposure.

Coordinates are fractions of the upright, centred image: x to the right, y down, so the patient's
right lung is on the left. A pose moves the finished drawing as a patient moves at the detector.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

SUBPIXEL = 4  # OpenCV takes vertices in 1/16 pixel


@lru_cache
def _spline(count: int, closed: bool, steps: int) -> np.ndarray:
    """Return (points, count) weights of a Catmull-Rom curve through `count` control points."""
    spans = count if closed else count - 1
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1
    )  # (steps, 4)
    weights = np.zeros((spans, steps, count))
    for span in range(spans):
        for tap in range(4):
            at = span + tap - 1
            weights[span, :, at % count if closed else min(max(at, 0), count - 1)] += basis[:, tap]
    rows = weights.reshape(-1, count)
    return rows if closed else np.vstack([rows, np.eye(count)[-1]])


def curve(points, closed: bool = False, steps: int = 8) -> np.ndarray:
    """Return a smooth line (..., n, 2) through the control points (..., k, 2)."""
    points = np.asarray(points, float)
    return _spline(points.shape[-2], closed, steps) @ points


class Canvas:
    """A square for drawing (side, side) float32 masks in [0, 1]; lengths are image fractions."""

    def __init__(self, side: int):
        self.side = side

    def _vertices(self, points) -> np.ndarray:
        scaled = (np.asarray(points) * self.side - 0.5) * 2**SUBPIXEL
        return np.rint(scaled).astype(np.int32)

    def soften(self, mask: np.ndarray, sigma: float) -> np.ndarray:
        """Return the mask after a Gaussian blur; wide blurs use a smaller grid for speed."""
        pixels = sigma * self.side
        if pixels < 0.4:
            return mask
        shrink = int(pixels // 2)
        if shrink < 2:
            return cv2.GaussianBlur(mask, (0, 0), pixels)
        side = max(4, self.side // shrink)
        small = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma * small.shape[0])
        return cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)

    def area(self, points, sigma: float = 0.0) -> np.ndarray:
        """Return a filled outline."""
        mask = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(mask, [self._vertices(points)], 255, cv2.LINE_AA, SUBPIXEL)
        return self.soften(mask.astype(np.float32) / 255, sigma)

    def lines(self, paths, width: float, sigma: float = 0.0) -> np.ndarray:
        """Return open lines; draw lines thinner than a pixel fainter instead."""
        mask = np.zeros((self.side, self.side), np.uint8)
        pixels = width * self.side
        strength = int(255 * min(1, max(0.2, pixels)))
        vertices = self._vertices(np.concatenate(paths))
        ends = np.cumsum([len(path) for path in paths]).tolist()
        paths = [vertices[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        thickness = max(1, round(pixels))
        cv2.polylines(mask, paths, False, strength, thickness, cv2.LINE_AA, SUBPIXEL)
        return self.soften(mask.astype(np.float32) / 255, sigma)

    def blob(self, center, radii, angle: float = 0.0, hard: float = 0.3) -> np.ndarray:
        """Return an ellipse; `hard` 0 is a Gaussian haze, 1 a sharp edge."""
        mask = np.zeros((self.side, self.side), np.float32)
        reach = max(radii) * (2.6 - hard)  # beyond it the mask is below 0.01
        low = [max(0, int((at - reach) * self.side)) for at in center]
        high = [min(self.side, int((at + reach) * self.side) + 2) for at in center]
        if low[0] >= high[0] or low[1] >= high[1]:
            return mask
        dx = (np.arange(low[0], high[0], dtype=np.float32) + 0.5) / self.side - center[0]
        dy = ((np.arange(low[1], high[1], dtype=np.float32) + 0.5) / self.side - center[1])[:, None]
        cos, sin = np.cos(angle), np.sin(angle)
        along = (cos / radii[0] * dx).astype(np.float32) + (sin / radii[0] * dy).astype(np.float32)
        across = (cos / radii[1] * dy).astype(np.float32) - (sin / radii[1] * dx).astype(np.float32)
        squared = along * along + across * across
        mask[low[1] : high[1], low[0] : high[0]] = np.exp(
            -0.7 * squared ** np.float32(1 + 4 * hard)
        )
        return mask

    def cloud(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Return a smooth random texture in [0, 1] with features of size `grain`."""
        cells = max(4, round(1 / grain))
        noise = rng.random((cells, cells), dtype=np.float32)
        shape = (self.side, self.side)
        return np.clip(cv2.resize(noise, shape, interpolation=cv2.INTER_CUBIC), 0, 1)


@dataclass
class Pose:
    """How the film was taken: misalignment, exposure, collimation and burnt-in text."""

    angle: float = 0.0  # degrees
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)  # image fractions
    gain: float = 1.0
    offset: float = 0.03
    gamma: float = 1.0
    noise: float = 0.012
    borders: tuple[float, float, float, float] = (0, 0, 0, 0)  # left, top, right, bottom
    border_value: float = 0.0
    texts: list[tuple[str, float, float]] = field(default_factory=list)

    def matrix(self) -> np.ndarray:
        """Return the (2, 3) map from canonical to posed coordinates, both in image fractions."""
        turn = cv2.getRotationMatrix2D((0.5, 0.5), self.angle, self.scale)
        turn[:, 2] += np.array(self.shift)
        return turn

    def misalign(self, share: float, rng: np.random.Generator) -> None:
        """Shift by up to `share` of the side along each axis; turn by up to that of 90 degrees."""
        # a larger share moves further in the same direction
        across, down, turn = share * rng.uniform(-1, 1, 3)
        self.shift = (self.shift[0] + across, self.shift[1] + down)
        self.angle += 90 * turn


def sample_pose(rng: np.random.Generator, view: str) -> Pose:
    """Sample a film's pose; portable films are more tilted and carry more text."""
    portable = view == "AP"
    texts = [("L" if rng.random() < 0.6 else "R", 0.0, rng.uniform(0.05, 0.16))]
    texts[0] = (texts[0][0], 0.88 if texts[0][0] == "L" else 0.05, texts[0][2])
    if rng.random() < (0.7 if portable else 0.25):
        words = ("PORTABLE", "AP", "SUPINE", "SEMI-ERECT") if portable else ("PA", "ERECT", "STAND")
        texts.append((str(rng.choice(words)), rng.uniform(0.03, 0.6), rng.uniform(0.04, 0.1)))
    if rng.random() < 0.2:
        texts.append((f"{rng.integers(1, 13):02d}:{rng.integers(60):02d}", 0.03, 0.97))
    framed = rng.random(4) < 0.12
    return Pose(
        angle=rng.normal(0, 3.2 if portable else 1.8),
        scale=rng.uniform(0.93, 1.08),
        shift=tuple(np.clip(rng.normal(0, 0.024, 2), -0.055, 0.055)),
        gain=rng.uniform(0.72, 1.0) if portable else rng.uniform(0.86, 1.1),
        offset=rng.uniform(0.04, 0.2) if portable else rng.uniform(-0.02, 0.08),
        gamma=rng.uniform(0.8, 1.25),
        noise=rng.uniform(0.008, 0.022),
        borders=tuple(framed * rng.uniform(0.01, 0.07, 4)),
        border_value=1.0 if rng.random() < 0.15 else 0.0,
        texts=texts,
    )


def develop(density: np.ndarray, pose: Pose, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the (size, size) uint8 radiograph: posed, exposed, with noise, frame and text."""
    matrix = pose.matrix() * np.array([[1, 1, len(density)]])
    image = cv2.warpAffine(
        density,
        matrix,
        (len(density), len(density)),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if len(density) != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    image = np.float32(pose.gain) * image + np.float32(pose.offset)
    image += np.float32(pose.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.maximum(image, 0) ** np.float32(pose.gamma)
    image = image / (1 + image**8) ** np.float32(0.125)  # the shoulder of a film's curve
    left, top, right, bottom = (round(border * size) for border in pose.borders)
    image[:top] = image[size - bottom :] = pose.border_value
    image[:, :left] = image[:, size - right :] = pose.border_value
    image = np.rint(image * 255).clip(0, 255).astype(np.uint8)
    for text, x, y in pose.texts:
        at = (round(x * size), round(max(y, 0.05) * size))
        thick = max(1, round(size / 220))
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size / 560, 245, thick, cv2.LINE_AA)
    return image
