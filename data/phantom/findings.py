"""The signature of each finding, by label, and its box in the finished image.

`RESHAPE[label](shape, rng, strength)` changes a Shape before the chest is drawn, and
`PAINT[label](film, rng, strength)` adds to the layers and gives a mask per focal lesion, none for
a diffuse finding. Strength is about 1; a subtle finding has less.
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from data.phantom import lungs
from data.phantom.anatomy import Film, Shape
from data.phantom.film import curve
from data.phantom.lungs import Masks, Rng

# Heart and mediastinum.


def heart(film: Film, rng: Rng, strength: float) -> Masks:
    return [film.heart]


def heart_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.mediastinum.heart *= 1.06 + rng.uniform(0.13, 0.27) * strength


def mediastinum(film: Film, rng: Rng, strength: float) -> Masks:
    return [film.mediastinum]


def mediastinum_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.mediastinum.width *= 1.15 + rng.uniform(0.25, 0.6) * strength
    shape.mediastinum.aorta += rng.uniform(0, 1)


def hernia(film: Film, rng: Rng, strength: float) -> Masks:
    """Draw a stomach behind the heart: a round rim with gas over fluid."""
    center = np.array([rng.normal(0.53, 0.025), np.mean(film.shape.thorax.domes) - 0.06])
    radii = rng.uniform(0.065, 0.095, 2) * (1.15, 0.9)
    mask = film.blob(center, radii, hard=0.8)
    level = np.arange(film.side)[:, None] / film.side > center[1] + 0.1 * radii[1]
    film.opacify(mask, 0.6 * strength)
    film.extra += np.float32(strength) * mask * np.where(level, 0.14, -0.24).astype(np.float32)
    return [mask]


# Bones and hardware.


def _on_bone(film: Film, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return a point on a rib (sometimes a clavicle) and the bone's direction there."""
    bones = film.clavicles if rng.random() < 0.15 else film.ribs
    bone = bones[rng.integers(len(bones))]
    at = rng.integers(len(bone) // 3, 5 * len(bone) // 6)
    along = bone[at + 1] - bone[at - 1]
    return bone[at], along / np.linalg.norm(along)


def fracture(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.integers(2, 6)):
        point, along = _on_bone(film, rng)
        across = along[::-1] * (-1, 1)
        gap = film.lines([[point - 0.016 * across, point + 0.016 * across]], 0.008)
        shifted = point + 0.007 * across
        stump = film.lines([[shifted, shifted + 0.035 * along]], 0.017, 0.002)
        callus = film.blob(point - 0.016 * along, (0.028, 0.022), np.arctan2(*along[::-1]), 0.4)
        film.extra += np.float32(strength) * (0.13 * stump + 0.2 * callus - 0.14 * gap)
        yield np.maximum(stump, callus)


def bone_lesion(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.integers(2, 5)):
        point, along = _on_bone(film, rng)
        radii = (rng.uniform(0.028, 0.045), rng.uniform(0.018, 0.025))
        mask = film.blob(point, radii, np.arctan2(*along[::-1]), 0.5)
        lytic = rng.random() < 0.3
        film.extra += np.float32(strength * (-0.17 if lytic else 0.3)) * mask
        yield mask


def devices(film: Film, rng: Rng, strength: float) -> Masks:
    kinds = ("tube", "line", "feeding", "pacemaker", "wires", "leads")
    bright = np.float32(0.14 + 0.08 * strength)
    for kind in rng.choice(kinds, rng.choice([1, 2, 2, 3]), replace=False):
        middle = 0.5 + rng.normal(0, 0.006)
        if kind == "tube":
            tip = rng.uniform(0.24, 0.31)
            tubes = [[(middle + d, -0.02), (middle + d, tip)] for d in (-0.008, 0.008)]
            film.extra += bright * film.lines(tubes, 0.006)
        elif kind == "line":
            entry = rng.choice([(0.36, 0.03), (0.22, 0.18), (0.78, 0.17), (0.64, 0.03)])
            way = [
                entry,
                (0.44, 0.21) if entry[0] < 0.5 else (0.53, 0.23),
                (0.45, 0.3),
                (0.45, 0.43),
            ]
            film.extra += bright * film.lines([curve(way)], 0.007)
        elif kind == "feeding":
            way = [(middle, -0.02), (middle, 0.3), (0.51, 0.6), (0.56, 0.76), (0.63, 0.82)]
            film.extra += bright * film.lines([curve(way)], 0.007)
        elif kind == "pacemaker":
            x, y = rng.choice([0.23, 0.77]) + rng.normal(0, 0.02), rng.uniform(0.2, 0.27)
            film.extra += 1.6 * bright * film.blob((x, y), (0.058, 0.05), rng.uniform(0, 3), 1.0)
            way = [(x, y), (0.5 + 0.4 * (x - 0.5), 0.2), (0.46, 0.36), (0.48, 0.6), (0.62, 0.7)]
            film.extra += bright * film.lines([curve(way)], 0.007)
        elif kind == "wires":  # of a sternotomy
            angles = np.linspace(0, 2 * np.pi, 14)
            loop = np.stack([0.016 * np.cos(angles), 0.008 * np.sin(angles)], 1)
            loops = [np.add(loop, (middle, y)) for y in np.linspace(0.27, 0.62, 5)]
            film.extra += 1.3 * bright * film.lines(loops, 0.005)
        else:
            pads = np.array([(0.2, 0.22), (0.8, 0.22), (0.74, 0.72)]) + rng.normal(0, 0.03, (3, 2))
            leads = [
                curve([pad, np.add(pad, (0.02, 0.2)), (0.5, 0.85), (0.45, 1.05)]) for pad in pads
            ]
            film.extra += 0.6 * bright * film.lines(leads, 0.005)
            for pad in pads:
                film.extra += bright * film.blob(pad, (0.014, 0.014), hard=1.0)
    return []


RESHAPE: dict[str, Callable[[Shape, Rng, float], None]] = {
    "Atelectasis": lungs.atelectasis_shape,
    "Major Atelectasis": lungs.collapse_shape,
    "Cardiomegaly": heart_shape,
    "Cardiac Abnormality": heart_shape,
    "Enlarged Cardiomediastinum": mediastinum_shape,
    "Edema": lungs.edema_shape,
    "Emphysema": lungs.emphysema_shape,
    "COPD": lungs.emphysema_shape,
    "Fibrosis": lungs.fibrosis_shape,
}

PAINT: dict[str, Callable[[Film, Rng, float], Masks]] = {
    "Atelectasis": lungs.atelectasis,
    "Major Atelectasis": lungs.collapse,
    "Cardiomegaly": heart,
    "Cardiac Abnormality": heart,
    "Enlarged Cardiomediastinum": mediastinum,
    "Effusion": lungs.effusion,
    "Pleural Effusion": lungs.effusion,
    "Fluid in Pleural Space": lungs.effusion,
    "Infiltration": lungs.infiltration,
    "Lung Opacity": lungs.haze,
    "Mass": lungs.mass,
    "Nodule": lungs.nodule,
    "Lung Lesion": lungs.lung_lesion,
    "Granuloma": lungs.granuloma,
    "Pleural Based Mass": lungs.pleural_mass,
    "Hilar": lungs.hilar,
    "Pneumonia": lungs.pneumonia,
    "Consolidation": lungs.consolidation,
    "Pneumothorax": lungs.pneumothorax,
    "Edema": lungs.edema,
    "Emphysema": lungs.emphysema,
    "COPD": lungs.emphysema,
    "Fibrosis": lungs.fibrosis,
    "Scarring": lungs.scarring,
    "Distortion of Pulmonary Architecture": lungs.distortion,
    "Pleural_Thickening": lungs.pleural_thickening,
    "Pleural Fibrosis": lungs.pleural_fibrosis,
    "Pleural Other": lungs.pleural_other,
    "Hernia": hernia,
    "Fracture": fracture,
    "Bone Lesion": bone_lesion,
    "Support Devices": devices,
}


# label -> the label that looks similar
LOOK_ALIKE = {
    "Consolidation": "Infiltration",
    "Pneumonia": "Infiltration",
    "Mass": "Nodule",
    "Pleural_Thickening": "Effusion",
}


def boxes(masks: Iterable[np.ndarray], pose: np.ndarray) -> list[tuple[float, ...]]:
    """Return (x, y, width, height) of each mask after the pose, in image fractions, clipped."""
    bounding_boxes = []
    for mask in masks:
        inside = (mask > 0.4 * max(float(mask.max()), 0.25)).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(inside)
        if not width:
            continue
        corners = np.array([(x, y), (x + width, y), (x, y + height), (x + width, y + height)])
        moved = corners / len(mask) @ pose[:, :2].T + pose[:, 2]
        low, high = moved.min(0).clip(0, 1), moved.max(0).clip(0, 1)
        if (high - low).min() > 0:
            bounding_boxes.append((*low, *(high - low)))
    return bounding_boxes


def benign(film: Film, rng: Rng) -> None:
    """Draw what a healthy chest may show and a network may mistake for a finding."""
    if rng.random() < 0.3:  # a vague shadow
        film.opacify(film.blob(lungs.spot(film, rng), rng.uniform(0.08, 0.14, 2), hard=0), 0.2)
    for _ in range(rng.poisson(0.5)):  # a vessel seen end-on, or a nipple
        film.opacify(film.blob(lungs.spot(film, rng), (0.011, 0.011), hard=0.4), 0.4)
    if rng.random() < 0.12 and not film.lateral:  # a fold of skin
        line = lungs.border(film.lungs[lungs.either(rng)], 0.2, 0.9, rng.uniform(0.15, 0.4))
        film.opacify(film.lines([line], 0.005, 0.001), 0.25)
