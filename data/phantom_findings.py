"""The signature of each finding: what it does to the chest's shape, and what it paints on the film.

`RESHAPE[label](shape, rng, strength)` changes a Shape before the chest is drawn, and
`PAINT[label](film, rng, strength)` adds to the layers and returns the masks of the focal lesions it
drew, none for a diffuse finding. Strength is about 1; a subtle finding has less.
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from data.phantom_anatomy import Film, Lung, Shape, curve

Rng = np.random.Generator
Masks = list[np.ndarray]


def _side(rng: Rng) -> int:
    return int(rng.integers(2))


def _sides(rng: Rng, both: float) -> list[int]:
    """One random side, or both with probability `both`."""
    return [0, 1] if rng.random() < both else [_side(rng)]


def _spot(film: Film, rng: Rng, down=(0.12, 0.9), across=(0.3, 0.9)) -> np.ndarray:
    return film.lungs[_side(rng)].at(rng.uniform(*across), rng.uniform(*down))


def _border(lung: Lung, start: float, stop: float, inset: float = 0.0) -> np.ndarray:
    """(9, 2): the outer lung border between two heights (0 apex, 1 angle), moved inwards."""
    line = curve(lung.outer)
    span = np.linspace(start, stop, 9) * (len(line) - 1)
    index = np.arange(len(line))
    points = np.stack([np.interp(span, index, line[:, axis]) for axis in (0, 1)], 1)
    return points + inset * (np.array([np.mean(lung.inner[:, 0]), 0.45]) - points)


def _on_air(film: Film, mask: np.ndarray) -> np.ndarray:
    """The part of a mask that lies over a lung."""
    return mask * np.maximum(*film.lung_masks)


# Round things in the lungs.


def nodule(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        radius = rng.uniform(0.017, 0.03)
        mask = film.blob(
            _spot(film, rng), (radius, radius * rng.uniform(0.8, 1.2)), rng.uniform(0, 3), 0.35
        )
        film.opacify(mask, strength * rng.uniform(0.5, 0.7))
        masks.append(_on_air(film, mask))
    return masks


def mass(film: Film, rng: Rng, strength: float) -> Masks:
    center, radius = _spot(film, rng, (0.15, 0.8)), rng.uniform(0.045, 0.08)
    mask = film.blob(center, (radius, radius * rng.uniform(0.75, 1.1)), rng.uniform(0, 3), 0.5)
    for _ in range(3):  # lobulated
        lobe = center + rng.normal(0, 0.45 * radius, 2)
        mask = np.maximum(mask, film.blob(lobe, (0.65 * radius, 0.6 * radius), hard=0.5))
    film.opacify(mask, strength * rng.uniform(0.62, 0.82))
    return [_on_air(film, mask)]


def granuloma(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for _ in range(rng.choice([1, 2, 2, 3, 4])):  # small, and white with calcium
        radius = rng.uniform(0.009, 0.016)
        mask = film.blob(_spot(film, rng), (radius, radius), hard=0.6)
        film.extra += np.float32(strength * rng.uniform(0.26, 0.38)) * mask
        masks.append(mask)
    return masks


def lung_lesion(film: Film, rng: Rng, strength: float) -> Masks:
    return (mass if rng.random() < 0.5 else nodule)(film, rng, strength)


def pleural_mass(film: Film, rng: Rng, strength: float) -> Masks:
    lung, height = film.lungs[_side(rng)], rng.uniform(0.3, 0.8)
    first, last = _border(lung, height, min(height + 0.05, 1))[[0, -1]]
    angle = np.arctan2(*(last - first)[::-1])
    mask = film.blob(first, (rng.uniform(0.06, 0.095), rng.uniform(0.035, 0.055)), angle, 0.6)
    film.opacify(mask, strength * rng.uniform(0.7, 0.9))
    return [_on_air(film, mask)]


def hilar(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for side in _sides(rng, 0.45):
        at = film.lungs[side].hilum + np.array([(-0.022, 0.022)[side], 0])
        mask = film.blob(at, (0.05, 0.07), rng.uniform(-0.3, 0.3), 0.3)
        for _ in range(3):  # lumps of lymph nodes
            lump = at + rng.normal(0, 0.03, 2)
            mask = np.maximum(mask, film.blob(lump, (0.035, 0.032), hard=0.5))
        film.opacify(mask, 0.75 * strength)
        masks.append(_on_air(film, mask))
    return masks


# Filled air spaces.


def _patch(film: Film, rng: Rng, size: float, grain: float, down=(0.2, 0.9)) -> np.ndarray:
    """An ill-defined opacity, broken by texture."""
    center = _spot(film, rng, down, (0.25, 0.75))
    mask = film.blob(center, (size, size * rng.uniform(0.7, 1.2)), rng.uniform(0, 3), 0.2)
    return mask * (0.45 + 0.85 * film.cloud(rng, grain)).clip(0, 1)


def consolidation(film: Film, rng: Rng, strength: float) -> Masks:
    mask = _patch(film, rng, rng.uniform(0.1, 0.14), 0.1, (0.25, 0.9))
    mask = np.clip(1.5 * mask, 0, 1)
    film.opacify(mask, strength * rng.uniform(0.62, 0.8))
    film.vessels *= 1 - mask  # the air bronchogram: bronchi stay dark in the white lung
    center = np.array(np.unravel_index(mask.argmax(), mask.shape))[::-1] / film.side
    ways = [curve([center + rng.normal(0, 0.05, 2), center, center + rng.normal(0, 0.06, 2)])
            for _ in range(3)]  # fmt: skip
    film.fill *= 1 - 0.35 * film.lines(ways, 0.009, 0.002)
    return [_on_air(film, mask)]


def pneumonia(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for _ in range(rng.choice([1, 2, 2, 3])):
        mask = _patch(film, rng, rng.uniform(0.075, 0.12), 0.04)
        film.opacify(mask, strength * rng.uniform(0.55, 0.72))
        masks.append(_on_air(film, mask))
    return masks


def infiltration(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for _ in range(rng.choice([1, 2, 2])):
        mask = _patch(film, rng, rng.uniform(0.1, 0.16), 0.025)
        film.opacify(mask, strength * rng.uniform(0.36, 0.52))
        masks.append(_on_air(film, mask))
    return masks


def haze(film: Film, rng: Rng, strength: float) -> Masks:
    """A lung opacity that nobody names further."""
    mask = film.blob(
        _spot(film, rng, (0.25, 0.85)), rng.uniform(0.1, 0.17, 2), rng.uniform(0, 3), 0
    )
    film.opacify(mask, strength * rng.uniform(0.4, 0.55))
    return [_on_air(film, mask)]


def edema(film: Film, rng: Rng, strength: float) -> Masks:
    for side, lung in enumerate(film.lungs):  # bat's wings, thick vessels, septal lines
        at = lung.hilum + np.array([(-1, 1)[side] * 0.055, 0.05])
        wing = film.blob(at, (0.12, 0.19), hard=0.05) * (0.6 + 0.5 * film.cloud(rng, 0.03))
        film.opacify(wing, strength * rng.uniform(0.45, 0.62))
        ends = _border(lung, 0.6, 0.95)
        inward = np.sign(0.5 - ends[:, :1]) * np.array([[0.04, 0.0]])
        septa = film.lines(list(np.stack([ends, ends + inward], 1)), 0.003)
        film.opacify(septa, 0.35 * strength)
    return []


def edema_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.heart *= 1 + 0.05 * strength
    shape.vessels *= 1 + 0.35 * strength
    shape.hila = [hilum * (1 + 0.3 * strength) for hilum in shape.hila]


def atelectasis(film: Film, rng: Rng, strength: float) -> Masks:
    """Plates across the lower zone of the side whose diaphragm `atelectasis_shape` raised."""
    side, masks = int(film.shape.domes[1] < film.shape.domes[0]), []
    for _ in range(rng.choice([1, 2, 2, 3])):
        start = film.lungs[side].at(rng.uniform(0.1, 0.35), rng.uniform(0.72, 0.97))
        turn, length = rng.uniform(-0.35, 0.2), rng.uniform(0.12, 0.2)
        step = length * np.array([(-1, 1)[side] * np.cos(turn), np.sin(turn)])
        plate = curve([start, start + 0.5 * step + rng.normal(0, 0.006, 2), start + step])
        mask = film.lines([plate], rng.uniform(0.012, 0.022), 0.003)
        film.opacify(mask, strength * rng.uniform(0.6, 0.8))
        masks.append(_on_air(film, mask))
    return masks


def atelectasis_shape(shape: Shape, rng: Rng, strength: float) -> None:
    side = _side(rng)  # the lung loses volume
    shape.domes[side] = min(shape.domes) - rng.uniform(0.02, 0.05) * strength


def collapse(film: Film, rng: Rng, strength: float) -> Masks:
    """A lobe without air: a wedge from the hilum to the raised diaphragm."""
    side = int(film.shape.domes[1] < film.shape.domes[0])
    lung = film.lungs[side]
    corner = lung.at(rng.uniform(0.6, 0.85), 1.05)
    wedge = [lung.hilum, lung.at(0.3, 0.75), corner, np.add(corner, (0, 0.06)), lung.at(0, 1.15)]
    mask = film.area(wedge, 0.008)
    film.opacify(mask, min(1, 0.85 * strength))
    return [_on_air(film, mask)]


def collapse_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.domes[_side(rng)] = min(shape.domes) - 0.05


# Air where it should not be, and too much of it.


def emphysema(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.integers(0, 4)):  # bullae: dark, with a thin wall
        center, radius = _spot(film, rng, (0.05, 0.7)), rng.uniform(0.03, 0.06)
        hole = film.blob(center, (radius, radius * 1.15), hard=0.7)
        film.air *= 1 + np.float32(0.16 * strength) * hole
        film.vessels *= 1 - hole
        around = np.linspace(0, 2 * np.pi, 24)
        wall = center + radius * np.stack([np.cos(around), 1.15 * np.sin(around)], 1)
        film.opacify(film.lines([wall], 0.0035), 0.22 * strength)
    return []


def emphysema_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.air *= 1 + 0.12 * strength
    shape.flat = min(1, shape.flat + 0.6 * strength)
    shape.domes = [dome + 0.045 * strength for dome in shape.domes]
    shape.heart *= 1 - 0.09 * strength
    shape.vessels *= 1 - 0.32 * strength


def pneumothorax(film: Film, rng: Rng, strength: float) -> Masks:
    lung = film.lungs[_side(rng)]
    gap = rng.uniform(0.14, 0.32)
    outer = _border(lung, 0, rng.uniform(0.55, 0.95))
    gaps = gap * np.linspace(1.2, 0.0, len(outer))[:, None] ** 0.6
    pleura = outer + gaps * (np.add(lung.hilum, (0, 0.05)) - outer)
    start = lung.inner[1]  # over the apex, down the inner border a little
    pleura = np.vstack([start, np.add(pleura, (0, 0.012))])
    mask = film.area(np.vstack([outer[0], outer, pleura[::-1], start]), 0.002)
    mask = _on_air(film, mask)
    film.vessels *= 1 - mask
    film.fill *= 1 - mask
    film.air *= 1 + np.float32(0.2 * strength) * mask
    film.opacify(film.lines([curve(pleura)], 0.006), 0.5 * strength)
    film.opacify(np.maximum(film.lung_masks[film.lungs.index(lung)] - mask, 0), 0.1 * strength)
    return [mask]


# The pleura.


def effusion(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for side in _sides(rng, 0.35):
        lung, height = film.lungs[side], rng.uniform(0.14, 0.45) * (0.5 + 0.5 * strength)
        high, low = _border(lung, 1 - height, 1)[0], lung.at(0, 1 - 0.45 * height)
        sag = lung.at(0.55, 1 - 0.6 * height)  # the meniscus climbs the chest wall
        surface = curve([high, high + 0.35 * (sag - high) + np.array([0, 0.02]), sag, low])
        under = np.vstack([[low[0], 1.0], [high[0] + np.sign(high[0] - 0.5) * 0.02, 1.0]])
        mask = film.area(np.vstack([surface, under]), 0.006)
        film.opacify(mask, 0.55 + 0.4 * min(strength, 1))
        masks.append(_on_air(film, mask))
    return masks


def pleural_thickening(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for side in _sides(rng, 0.4):
        start = rng.choice([0.0, rng.uniform(0.1, 0.6)])  # an apical cap, or a band on the wall
        line = _border(film.lungs[side], start, min(1, start + rng.uniform(0.25, 0.45)), 0.02)
        mask = film.lines([line], rng.uniform(0.022, 0.042), 0.004)
        film.opacify(mask, strength * rng.uniform(0.7, 0.9))
        masks.append(_on_air(film, mask))
    return masks


def pleural_fibrosis(film: Film, rng: Rng, strength: float) -> Masks:
    masks = pleural_thickening(film, rng, strength)
    angle = film.lungs[_side(rng)].outer[-1]  # and a blunt costophrenic angle
    blunt = film.blob(angle, (0.05, 0.055), hard=0.3)
    film.opacify(blunt, 0.75 * strength)
    return [*masks, _on_air(film, blunt)]


def pleural_other(film: Film, rng: Rng, strength: float) -> Masks:
    masks = pleural_thickening(film, rng, strength)
    for _ in range(rng.integers(2, 5)):  # calcified plaques, seen face on
        mask = film.blob(
            _spot(film, rng, (0.4, 0.95)), rng.uniform(0.02, 0.045, 2), rng.uniform(0, 3), 0.7
        )
        mask *= film.cloud(rng, 0.015) > 0.35
        film.extra += np.float32(0.17 * strength) * mask
        masks.append(mask)
    return masks


# Scars.


def fibrosis(film: Film, rng: Rng, strength: float) -> Masks:
    around = np.linspace(0, 2 * np.pi, 9)
    ring = np.stack([np.cos(around), np.sin(around)], 1)
    rings = []
    for lung in film.lungs:  # honeycombs at the bases and along the wall
        for _ in range(55):
            low = rng.beta(3, 1.2)
            center = lung.at(rng.beta(1.6, 1), low)
            rings.append(center + rng.uniform(0.006, 0.014) * ring * rng.uniform(0.7, 1.3, 2))
        film.opacify(film.blob(lung.at(0.6, 0.95), (0.13, 0.1), hard=0), 0.22 * strength)
    film.opacify(film.lines(rings, 0.0045), 0.5 * strength)
    return []


def fibrosis_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.domes = [dome - 0.03 * strength for dome in shape.domes]


def _strands(film: Film, rng: Rng, center, count: int, length: float, toward=None) -> np.ndarray:
    """Thin lines that start around a point, at random angles or all about one way."""
    angles = rng.uniform(0, 2 * np.pi, count)
    if toward is not None:
        angles = np.arctan2(*(toward - center)[::-1]) + rng.normal(0, 0.4, count)
    step = (
        length * rng.uniform(0.6, 1.3, (count, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    )
    start = center + rng.normal(0, 0.012, (count, 2))
    middle = start + 0.5 * step + rng.normal(0, 0.007, (count, 2))
    return film.lines(list(curve(np.stack([start, middle, start + step], 1))), 0.0065, 0.0015)


def scarring(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for side in _sides(rng, 0.4):
        lung = film.lungs[side]
        center = lung.at(rng.uniform(0.35, 0.8), rng.uniform(0.06, 0.25))
        mask = _strands(film, rng, center, rng.integers(5, 9), 0.12, lung.hilum)
        film.opacify(mask, strength * rng.uniform(0.6, 0.8))
        film.opacify(film.blob(center, (0.06, 0.04), hard=0.1), 0.35 * strength)
        masks.append(_on_air(film, mask))
    return masks


def distortion(film: Film, rng: Rng, strength: float) -> Masks:
    center = _spot(film, rng, (0.25, 0.8), (0.3, 0.7))
    mask = _strands(film, rng, center, 14, 0.12)
    film.opacify(mask, 0.75 * strength)
    film.opacify(film.blob(center, (0.035, 0.035), hard=0.2), 0.55 * strength)
    return [_on_air(film, mask)]


# Heart and mediastinum.


def heart(film: Film, rng: Rng, strength: float) -> Masks:
    return [film.heart]


def heart_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.heart *= 1.06 + rng.uniform(0.16, 0.3) * strength


def mediastinum(film: Film, rng: Rng, strength: float) -> Masks:
    return [film.mediastinum]


def mediastinum_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.mediastinum *= 1.15 + rng.uniform(0.25, 0.6) * strength
    shape.aorta += rng.uniform(0, 1)


def hernia(film: Film, rng: Rng, strength: float) -> Masks:
    """A stomach behind the heart: a round rim with gas over fluid."""
    center = np.array([rng.normal(0.53, 0.025), np.mean(film.shape.domes) - 0.06])
    radii = rng.uniform(0.065, 0.095, 2) * (1.15, 0.9)
    mask = film.blob(center, radii, hard=0.8)
    level = np.arange(film.side)[:, None] / film.side > center[1] + 0.1 * radii[1]
    film.opacify(mask, 0.6 * strength)
    film.extra += np.float32(strength) * mask * np.where(level, 0.1, -0.16).astype(np.float32)
    return [mask]


# Bones and hardware.


def _on_bone(film: Film, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A point on a rib (or, sometimes, a clavicle) and the bone's direction there."""
    bones = film.clavicles if rng.random() < 0.15 else film.ribs
    bone = bones[rng.integers(len(bones))]
    at = rng.integers(len(bone) // 3, len(bone) - 5)
    along = bone[at + 1] - bone[at - 1]
    return bone[at], along / np.linalg.norm(along)


def fracture(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for _ in range(rng.integers(1, 5)):
        point, along = _on_bone(film, rng)
        across = along[::-1] * (-1, 1)
        gap = film.lines([[point - 0.016 * across, point + 0.016 * across]], 0.008)
        shifted = point + 0.007 * across
        stump = film.lines([[shifted, shifted + 0.035 * along]], 0.017, 0.002)
        callus = film.blob(point - 0.016 * along, (0.024, 0.018), np.arctan2(*along[::-1]), 0.4)
        film.extra += np.float32(strength) * (0.11 * stump + 0.15 * callus - 0.12 * gap)
        masks.append(np.maximum(stump, callus))
    return masks


def bone_lesion(film: Film, rng: Rng, strength: float) -> Masks:
    masks = []
    for _ in range(rng.integers(1, 4)):
        point, along = _on_bone(film, rng)
        radii = (rng.uniform(0.022, 0.036), rng.uniform(0.015, 0.02))
        mask = film.blob(point, radii, np.arctan2(*along[::-1]), 0.5)
        lytic = rng.random() < 0.3
        film.extra += np.float32(strength * (-0.13 if lytic else 0.24)) * mask
        masks.append(mask)
    return masks


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
        elif kind == "wires":  # of a sternum once opened
            around = np.linspace(0, 2 * np.pi, 14)
            loop = np.stack([0.016 * np.cos(around), 0.008 * np.sin(around)], 1)
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
    "Atelectasis": atelectasis_shape,
    "Major Atelectasis": collapse_shape,
    "Cardiomegaly": heart_shape,
    "Cardiac Abnormality": heart_shape,
    "Enlarged Cardiomediastinum": mediastinum_shape,
    "Edema": edema_shape,
    "Emphysema": emphysema_shape,
    "COPD": emphysema_shape,
    "Fibrosis": fibrosis_shape,
}

PAINT: dict[str, Callable[[Film, Rng, float], Masks]] = {
    "Atelectasis": atelectasis,
    "Major Atelectasis": collapse,
    "Cardiomegaly": heart,
    "Cardiac Abnormality": heart,
    "Enlarged Cardiomediastinum": mediastinum,
    "Effusion": effusion,
    "Pleural Effusion": effusion,
    "Fluid in Pleural Space": effusion,
    "Infiltration": infiltration,
    "Lung Opacity": haze,
    "Mass": mass,
    "Nodule": nodule,
    "Lung Lesion": lung_lesion,
    "Granuloma": granuloma,
    "Pleural Based Mass": pleural_mass,
    "Hilar": hilar,
    "Pneumonia": pneumonia,
    "Consolidation": consolidation,
    "Pneumothorax": pneumothorax,
    "Edema": edema,
    "Emphysema": emphysema,
    "COPD": emphysema,
    "Fibrosis": fibrosis,
    "Scarring": scarring,
    "Distortion of Pulmonary Architecture": distortion,
    "Pleural_Thickening": pleural_thickening,
    "Pleural Fibrosis": pleural_fibrosis,
    "Pleural Other": pleural_other,
    "Hernia": hernia,
    "Fracture": fracture,
    "Bone Lesion": bone_lesion,
    "Support Devices": devices,
}


def boxes(masks: Iterable[np.ndarray], pose: np.ndarray) -> list[tuple[float, ...]]:
    """(x, y, width, height) of each mask after the pose, in image fractions, cut at the edges."""
    found = []
    for mask in masks:
        inside = (mask > 0.4 * max(float(mask.max()), 0.25)).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(inside)
        if not width:
            continue
        corners = np.array([(x, y), (x + width, y), (x, y + height), (x + width, y + height)])
        moved = corners / len(mask) @ pose[:, :2].T + pose[:, 2]
        low, high = moved.min(0).clip(0, 1), moved.max(0).clip(0, 1)
        if (high - low).min() > 0:
            found.append((*low, *(high - low)))
    return found


def benign(film: Film, rng: Rng) -> None:
    """What a healthy chest may show and a network may take for a finding."""
    if rng.random() < 0.3:  # a vague shadow
        film.opacify(film.blob(_spot(film, rng), rng.uniform(0.08, 0.14, 2), hard=0), 0.2)
    for _ in range(rng.poisson(0.5)):  # a vessel seen end on, a nipple
        film.opacify(film.blob(_spot(film, rng), (0.011, 0.011), hard=0.4), 0.4)
    if rng.random() < 0.12 and not film.lateral:  # a fold of skin
        line = _border(film.lungs[_side(rng)], 0.2, 0.9, rng.uniform(0.15, 0.4))
        film.opacify(film.lines([line], 0.005, 0.001), 0.25)
