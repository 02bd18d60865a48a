"""Findings of the lungs and the pleura: how they paint the film and reshape the chest."""

from collections.abc import Iterable

import numpy as np

from data.phantom.anatomy import Film, Lung, Shape
from data.phantom.film import curve

Rng = np.random.Generator
Masks = Iterable[np.ndarray]  # one per focal lesion


def either(rng: Rng) -> int:
    return int(rng.integers(2))


def sides(rng: Rng, both: float) -> list[int]:
    """Return one random side, or both with probability `both`."""
    return [0, 1] if rng.random() < both else [either(rng)]


def spot(film: Film, rng: Rng, down=(0.12, 0.9), across=(0.3, 0.9)) -> np.ndarray:
    return film.lungs[either(rng)].at(rng.uniform(*across), rng.uniform(*down))


def border(lung: Lung, start: float, stop: float, inset: float = 0.0) -> np.ndarray:
    """Return (9, 2): the outer lung border between two heights (0 apex, 1 angle), moved inwards."""
    line = curve(lung.outer)
    span = np.linspace(start, stop, 9) * (len(line) - 1)
    index = np.arange(len(line))
    points = np.stack([np.interp(span, index, line[:, axis]) for axis in (0, 1)], 1)
    return points + inset * (np.array([np.mean(lung.inner[:, 0]), 0.45]) - points)


def on_air(film: Film, mask: np.ndarray) -> np.ndarray:
    """Return the part of a mask that lies over a lung."""
    return mask * np.maximum(*film.lung_masks)


# Round lesions of the lungs.


def nodule(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        radius = rng.uniform(0.017, 0.03)
        mask = film.blob(
            spot(film, rng), (radius, radius * rng.uniform(0.8, 1.2)), rng.uniform(0, 3), 0.35
        )
        film.opacify(mask, strength * rng.uniform(0.6, 0.8))
        yield on_air(film, mask)


def mass(film: Film, rng: Rng, strength: float) -> Masks:
    center, radius = spot(film, rng, (0.15, 0.8)), rng.uniform(0.045, 0.08)
    mask = film.blob(center, (radius, radius * rng.uniform(0.75, 1.1)), rng.uniform(0, 3), 0.5)
    for _ in range(3):  # lobulated
        lobe = center + rng.normal(0, 0.45 * radius, 2)
        mask = np.maximum(mask, film.blob(lobe, (0.65 * radius, 0.6 * radius), hard=0.5))
    film.opacify(mask, strength * rng.uniform(0.62, 0.82))
    return [on_air(film, mask)]


def granuloma(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.choice([1, 2, 3, 3, 5])):  # small, and white with calcium
        radius = rng.uniform(0.012, 0.018)
        mask = film.blob(spot(film, rng), (radius, radius), hard=0.6)
        film.extra += np.float32(strength * rng.uniform(0.3, 0.42)) * mask
        yield mask


def lung_lesion(film: Film, rng: Rng, strength: float) -> Masks:
    return (mass if rng.random() < 0.5 else nodule)(film, rng, strength)


def pleural_mass(film: Film, rng: Rng, strength: float) -> Masks:
    lung, height = film.lungs[either(rng)], rng.uniform(0.3, 0.8)
    first, last = border(lung, height, min(height + 0.05, 1))[[0, -1]]
    angle = np.arctan2(*(last - first)[::-1])
    mask = film.blob(first, (rng.uniform(0.07, 0.11), rng.uniform(0.045, 0.065)), angle, 0.6)
    film.opacify(mask, strength * rng.uniform(0.7, 0.9))
    return [on_air(film, mask)]


def hilar(film: Film, rng: Rng, strength: float) -> Masks:
    for side in sides(rng, 0.45):
        at = film.lungs[side].hilum + np.array([(-0.022, 0.022)[side], 0])
        mask = film.blob(at, (0.05, 0.07), rng.uniform(-0.3, 0.3), 0.3)
        for _ in range(3):  # lumps of lymph nodes
            lump = at + rng.normal(0, 0.03, 2)
            mask = np.maximum(mask, film.blob(lump, (0.035, 0.032), hard=0.5))
        film.opacify(mask, 0.75 * strength)
        yield on_air(film, mask)


# Filled air spaces.


def _patch(film: Film, rng: Rng, size: float, grain: float, down=(0.2, 0.9)) -> np.ndarray:
    """Return an ill-defined opacity, broken up by texture."""
    center = spot(film, rng, down, (0.25, 0.75))
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
    return [on_air(film, mask)]


def pneumonia(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.choice([1, 2, 2, 3])):
        mask = _patch(film, rng, rng.uniform(0.075, 0.12), 0.04)
        film.opacify(mask, strength * rng.uniform(0.55, 0.72))
        yield on_air(film, mask)


def infiltration(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.choice([1, 2, 2])):
        mask = _patch(film, rng, rng.uniform(0.1, 0.16), 0.025)
        film.opacify(mask, strength * rng.uniform(0.36, 0.52))
        yield on_air(film, mask)


def haze(film: Film, rng: Rng, strength: float) -> Masks:
    """Draw an unspecific lung opacity."""
    mask = film.blob(spot(film, rng, (0.25, 0.85)), rng.uniform(0.1, 0.17, 2), rng.uniform(0, 3), 0)
    film.opacify(mask, strength * rng.uniform(0.4, 0.55))
    return [on_air(film, mask)]


def edema(film: Film, rng: Rng, strength: float) -> Masks:
    for side, lung in enumerate(film.lungs):  # bat's wings, thick vessels, septal lines
        at = lung.hilum + np.array([(-1, 1)[side] * 0.055, 0.05])
        wing = film.blob(at, (0.12, 0.19), hard=0.05) * (0.6 + 0.5 * film.cloud(rng, 0.03))
        film.opacify(wing, strength * rng.uniform(0.24, 0.42))
        ends = border(lung, 0.6, 0.95)
        ends[:, 1] += rng.normal(0, 0.008, len(ends))
        inward = np.stack([(1, -1)[side] * rng.uniform(0.008, 0.03, len(ends)), 0 * ends[:, 1]], 1)
        septa = film.lines(np.stack([ends, ends + inward], 1), 0.003)
        film.opacify(septa, 0.2 * strength)
    return []


def edema_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.mediastinum.heart *= 1 + 0.03 * strength
    shape.lungs.vessels *= 1 + 0.2 * strength
    shape.lungs.hila = [hilum * (1 + 0.2 * strength) for hilum in shape.lungs.hila]


def atelectasis(film: Film, rng: Rng, strength: float) -> Masks:
    """Draw plates across the lower zone of the lung that lost volume."""
    side = int(np.argmax(film.shape.thorax.lost))
    for _ in range(rng.choice([1, 2, 2, 3])):
        start = film.lungs[side].at(rng.uniform(0.1, 0.35), rng.uniform(0.72, 0.97))
        turn, length = rng.uniform(-0.35, 0.2), rng.uniform(0.12, 0.2)
        step = length * np.array([(-1, 1)[side] * np.cos(turn), np.sin(turn)])
        plate = curve([start, start + 0.5 * step + rng.normal(0, 0.006, 2), start + step])
        mask = film.lines([plate], rng.uniform(0.012, 0.022), 0.003)
        film.opacify(mask, strength * rng.uniform(0.45, 0.7))
        yield on_air(film, mask)


def _shrink(shape: Shape, side: int, amount: float) -> None:
    """Reduce a lung's volume, which pulls its diaphragm up."""
    shape.thorax.lost[side] += amount
    shape.thorax.domes[side] -= amount


def atelectasis_shape(shape: Shape, rng: Rng, strength: float) -> None:
    _shrink(shape, either(rng), rng.uniform(0.01, 0.03) * strength)


def collapse(film: Film, rng: Rng, strength: float) -> Masks:
    """Draw a lobe without air: a wedge from the hilum to the raised diaphragm."""
    side = int(np.argmax(film.shape.thorax.lost))
    lung = film.lungs[side]
    corner = lung.at(rng.uniform(0.6, 0.85), 1.05)
    wedge = [lung.hilum, lung.at(0.3, 0.75), corner, np.add(corner, (0, 0.06)), lung.at(0, 1.15)]
    mask = film.area(wedge, 0.008)
    film.opacify(mask, min(1, 0.85 * strength))
    return [on_air(film, mask)]


def collapse_shape(shape: Shape, rng: Rng, strength: float) -> None:
    _shrink(shape, either(rng), 0.045 * strength)


# Air in the pleura, and too much air in the lungs.


def emphysema(film: Film, rng: Rng, strength: float) -> Masks:
    for _ in range(rng.integers(0, 4)):  # bullae: dark, with a thin wall
        center, radius = spot(film, rng, (0.05, 0.7)), rng.uniform(0.03, 0.06)
        hole = film.blob(center, (radius, radius * 1.15), hard=0.7)
        film.air *= 1 + np.float32(0.16 * strength) * hole
        film.vessels *= 1 - hole
        angles = np.linspace(0, 2 * np.pi, 24)
        wall = center + radius * np.stack([np.cos(angles), 1.15 * np.sin(angles)], 1)
        film.opacify(film.lines([wall], 0.0035), 0.22 * strength)
    return []


def emphysema_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.lungs.air *= 1 + 0.08 * strength
    shape.thorax.flat = min(1, shape.thorax.flat + 0.5 * strength)
    shape.thorax.domes = [dome + 0.03 * strength for dome in shape.thorax.domes]
    shape.mediastinum.heart *= 1 - 0.06 * strength
    shape.lungs.vessels *= 1 - 0.3 * strength


def pneumothorax(film: Film, rng: Rng, strength: float) -> Masks:
    side = either(rng)
    lung, depth = film.lungs[side], rng.uniform(0.18, 0.38)
    bottom = rng.uniform(0.6, 0.98)
    wall = border(lung, 0.12, bottom)
    inwards = depth * np.linspace(1, 0, len(wall))[:, None] ** 0.6
    pleura = wall + inwards * (lung.hilum + np.array([0, 0.06]) - wall)
    over = lung.at(0.1, 0.2), lung.at(0.35, 0.07 + 0.5 * depth)  # the lung's fallen apex
    pleura = curve([*over, *pleura[1:]])
    mask = film.area(np.vstack([border(lung, 0, bottom), pleura[::-1], lung.inner[1:2]]), 0.002)
    mask = on_air(film, mask)
    film.vessels *= 1 - mask
    film.fill *= 1 - mask
    film.air *= 1 + np.float32(0.3 * strength) * mask
    film.opacify(film.lines([pleura], 0.006), 0.45 * strength)
    film.opacify(np.maximum(film.lung_masks[side] - mask, 0), 0.1 * strength)
    return [mask]


# The pleura.


def effusion(film: Film, rng: Rng, strength: float) -> Masks:
    for side in sides(rng, 0.35):
        lung, height = film.lungs[side], rng.uniform(0.06, 0.36) * (0.3 + 0.7 * strength)
        high, low = border(lung, 1 - height, 1)[0], lung.inner[-1]
        level = high[1] + 0.05 + 0.12 * height  # the meniscus climbs the chest wall
        across = high[0] + np.array([0, 0.2, 0.6, 1]) * (low[0] - high[0])
        down = [high[1], (high[1] + level) / 2, level, level - 0.012]
        surface = curve(np.stack([across, down], 1))
        out = high[0] + np.sign(high[0] - low[0]) * 0.05
        under = np.array([(low[0], 1.0), (out, 1.0), (out, high[1] - 0.01)])
        mask = film.area(np.vstack([surface, under]), 0.006)
        film.opacify(mask, 0.4 + 0.5 * min(strength, 1))
        yield on_air(film, mask)


def pleural_thickening(film: Film, rng: Rng, strength: float) -> Masks:
    for side in sides(rng, 0.4):
        start = rng.choice([0.0, rng.uniform(0.1, 0.6)])  # an apical cap, or a band on the wall
        line = border(film.lungs[side], start, min(1, start + rng.uniform(0.25, 0.45)), 0.02)
        mask = film.lines([line], rng.uniform(0.032, 0.055), 0.004)
        film.opacify(mask, strength * rng.uniform(0.8, 1.0))
        yield on_air(film, mask)


def pleural_fibrosis(film: Film, rng: Rng, strength: float) -> Masks:
    yield from pleural_thickening(film, rng, strength)
    angle = film.lungs[either(rng)].outer[-1]  # and a blunt costophrenic angle
    blunt = film.blob(angle, (0.05, 0.055), hard=0.3)
    film.opacify(blunt, 0.75 * strength)
    yield on_air(film, blunt)


def pleural_other(film: Film, rng: Rng, strength: float) -> Masks:
    yield from pleural_thickening(film, rng, strength)
    for _ in range(rng.integers(3, 7)):  # calcified plaques, seen face on
        mask = film.blob(
            spot(film, rng, (0.4, 0.95)), rng.uniform(0.02, 0.045, 2), rng.uniform(0, 3), 0.7
        )
        mask *= film.cloud(rng, 0.015) > 0.35
        film.extra += np.float32(0.22 * strength) * mask
        yield mask


# Scars.


def fibrosis(film: Film, rng: Rng, strength: float) -> Masks:
    """Draw a net of fine lines at the bases and along the chest wall, over a faint haze."""
    net = 1 - np.abs(2 * film.cloud(rng, 0.016) - 1)  # the ridges between light and dark
    net = net**4 + 0.7 * (1 - np.abs(2 * film.cloud(rng, 0.026) - 1)) ** 5
    where = np.zeros_like(net)
    for lung in film.lungs:
        where = np.maximum(where, film.blob(lung.at(0.65, 0.95), (0.15, 0.17), hard=0.1))
        wall = film.lines([border(lung, 0.3, 1)], 0.05, 0.02)
        where = np.maximum(where, wall)
    film.opacify(where * net.clip(0, 1), 0.4 * strength)
    film.opacify(where, 0.08 * strength)
    return []


def fibrosis_shape(shape: Shape, rng: Rng, strength: float) -> None:
    shape.thorax.domes = [dome - 0.015 * strength for dome in shape.thorax.domes]


def _strands(film: Film, rng: Rng, center, count: int, length: float, toward=None) -> np.ndarray:
    """Return thin lines that start around a point, at random angles or roughly toward another."""
    angles = rng.uniform(0, 2 * np.pi, count)
    if toward is not None:
        angles = np.arctan2(*(toward - center)[::-1]) + rng.normal(0, 0.4, count)
    step = (
        length * rng.uniform(0.6, 1.3, (count, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    )
    start = center + rng.normal(0, 0.022, (count, 2))
    middle = start + 0.5 * step + rng.normal(0, 0.007, (count, 2))
    return film.lines(list(curve(np.stack([start, middle, start + step], 1))), 0.004, 0.0015)


def scarring(film: Film, rng: Rng, strength: float) -> Masks:
    for side in sides(rng, 0.4):
        lung = film.lungs[side]
        center = lung.at(rng.uniform(0.35, 0.8), rng.uniform(0.06, 0.25))
        mask = _strands(film, rng, center, int(rng.integers(5, 9)), 0.13, lung.hilum)
        film.opacify(mask, strength * rng.uniform(0.42, 0.6))
        film.opacify(film.blob(center, (0.07, 0.045), hard=0.1), 0.4 * strength)
        yield on_air(film, mask)


def distortion(film: Film, rng: Rng, strength: float) -> Masks:
    center = spot(film, rng, (0.25, 0.8), (0.3, 0.7))
    mask = _strands(film, rng, center, 18, 0.14)
    film.opacify(mask, 0.6 * strength)
    film.opacify(film.blob(center, (0.05, 0.05), hard=0.2), 0.65 * strength)
    return [on_air(film, mask)]
