"""The normal chest of a synthetic patient: its shape and the layers of the radiograph."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from data.phantom.film import Canvas, curve

VIEWS = ("PA", "AP", "LATERAL")

# Distances of the lung's borders from the midline, from apex (0) to costophrenic angle (1).
_DOWN = np.array([0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.88, 1.0])
_OUTER = np.array([0.125, 0.195, 0.262, 0.318, 0.352, 0.372, 0.38, 0.377])
_INNER = np.array([0.115, 0.075, 0.055, 0.058, 0.065, 0.072, 0.08, 0.085])
_LATERAL_OUTER = np.array([0.56, 0.61, 0.665, 0.715, 0.75, 0.76, 0.755, 0.745])  # the back
_LATERAL_INNER = np.array([0.52, 0.455, 0.375, 0.3, 0.255, 0.235, 0.235, 0.24])  # the sternum
_HEART = np.array(
    [
        (0.455, 0.35), (0.428, 0.47), (0.412, 0.56), (0.410, 0.64), (0.44, 0.72), (0.55, 0.755),
        (0.655, 0.745), (0.692, 0.69), (0.672, 0.60), (0.628, 0.51), (0.585, 0.435), (0.55, 0.36),
    ]
)  # fmt: skip
_LATERAL_HEART = np.array(
    [
        (0.45, 0.36), (0.34, 0.43), (0.275, 0.53), (0.255, 0.63), (0.30, 0.70), (0.44, 0.71),
        (0.53, 0.65), (0.55, 0.55), (0.53, 0.44),
    ]
)  # fmt: skip


@dataclass
class Thorax:
    """The space that the lungs fill."""

    width: float  # of the rib cage; 1 is the mean
    apex: float
    domes: list[float]  # y of the two diaphragm domes
    flat: float  # 0 a round diaphragm, 1 a flat one
    lost: list[float] = field(default_factory=lambda: [0.0, 0.0])  # volume, as a dome's rise


@dataclass
class Mediastinum:
    """The organs between the lungs; 1 is the mean size."""

    heart: float
    tilt: float  # of the heart
    width: float
    aorta: float


@dataclass
class Lungs:
    hila: list[float]
    air: float  # how dark the lungs are against soft tissue
    vessels: float


@dataclass
class Body:
    fat: float
    breasts: float
    gas: float  # stomach bubble
    bones: float
    ribs: float  # y of the first posterior rib


@dataclass
class Shape:
    """Properties that vary between patients and with disease; lengths are image fractions."""

    view: str
    texture: int  # seed of vessels and lung texture, which a patient keeps
    thorax: Thorax
    mediastinum: Mediastinum
    lungs: Lungs
    body: Body


def sample_shape(rng: np.random.Generator, view: str, female: bool) -> Shape:
    """Sample a patient's shape; portable (AP) films show a larger heart and a shallower breath.

    The phantoms depend on the order in which these numbers are drawn.
    """
    dome = rng.normal(0.69, 0.022)
    portable = view == "AP"
    return Shape(
        view=view,
        texture=int(rng.integers(2**31)),
        thorax=Thorax(
            width=rng.normal(0.97 - 0.03 * female, 0.045),
            apex=rng.normal(0.125, 0.012),
            domes=[dome - 0.05 * portable, dome + rng.normal(0.022, 0.014) - 0.05 * portable],
            flat=rng.uniform(0, 0.5),
        ),
        mediastinum=Mediastinum(
            heart=rng.normal(0.99, 0.07) * (1.08 if portable else 1),
            tilt=rng.normal(0, 0.06),
            width=max(0.75, rng.normal(1, 0.09)) * (1.1 if portable else 1),
            aorta=rng.uniform(0.3, 1.1),
        ),
        lungs=Lungs(
            hila=list(rng.normal(1, 0.13, 2)),
            air=rng.normal(0.51, 0.035) - 0.03 * portable,
            vessels=rng.uniform(0.75, 1.25),
        ),
        body=Body(
            fat=rng.uniform(0, 1),
            breasts=rng.uniform(0.35, 1) if female else 0.0,
            gas=rng.uniform(0, 1) if rng.random() < 0.6 else 0.0,
            bones=rng.uniform(0.75, 1.2),
            ribs=rng.normal(0.12, 0.008),
        ),
    )


class Lung:
    """One lung: outer and inner borders from apex to base, closed by the diaphragm."""

    def __init__(self, shape: Shape, side: int):
        # the costophrenic angle
        angle = shape.thorax.domes[side] + 0.105 * (1 - 0.6 * shape.thorax.flat)
        y = shape.thorax.apex + _DOWN * (angle - shape.thorax.apex)
        if shape.view == "LATERAL":
            offset = 0.012 * side
            outer, inner = _LATERAL_OUTER + offset, _LATERAL_INNER - offset
            lowest = np.array([y[-1] + 0.07, y[-1] - 0.06])
        else:
            sign = (-1, 1)[side]
            outer = 0.5 + sign * _OUTER * shape.thorax.width
            inner = 0.5 + sign * _INNER
            lowest = np.array([y[-1], shape.thorax.domes[side] + 0.05])
        outer_y = shape.thorax.apex + _DOWN * (lowest[0] - shape.thorax.apex)
        inner_y = shape.thorax.apex + _DOWN * (lowest[1] - shape.thorax.apex)
        self.outer = np.stack([outer, outer_y], 1)
        self.inner = np.stack([inner, inner_y], 1)
        across = np.array([0.0, 0.13, 0.4, 0.68, 1.0])[:, None]
        base = self.outer[-1] + (self.inner[-1] - self.outer[-1]) * across
        lift = np.array([0, 0.42, 1, 0.8, 0]) * (1 - 0.6 * shape.thorax.flat)
        base[:, 1] += lift * (shape.thorax.domes[side] - base[:, 1].min())
        self.base = base
        self.hilum = np.array([0.5 + (-0.105, 0.095)[side], 0.43 - 0.012 * side])
        if shape.view == "LATERAL":
            self.hilum = np.array([0.52, 0.42])

    def outline(self) -> np.ndarray:
        """Return the closed outline (n, 2)."""
        inner, outer, base = curve(self.inner[::-1]), curve(self.outer), curve(self.base)
        return np.vstack([outer[:-1], base[:-1], inner])

    def at(self, across: float, down: float) -> np.ndarray:
        """Return the point between inner (0) and outer (1) border, from apex (0) to dome (1)."""
        outer = [np.interp(down * 0.9, _DOWN, self.outer[:, axis]) for axis in (0, 1)]
        inner = [np.interp(down * 0.9, _DOWN, self.inner[:, axis]) for axis in (0, 1)]
        point = np.array(inner) + across * (np.array(outer) - inner)
        point[1] -= 0.045 * down * (1 - abs(2 * across - 0.9))  # the dome rises between the borders
        return point


class Film(Canvas):
    """A square canvas of density layers, to which findings add.

    `fill` is the share of the lungs' air that denser matter replaces, so opacities saturate at soft
    tissue; `extra` is added density (bone, calcium, metal) or, if negative, gas.
    """

    def __init__(self, shape: Shape, side: int):
        super().__init__(side)
        self.shape = shape
        self.lungs = (Lung(shape, 0), Lung(shape, 1))
        self.texture = np.random.default_rng(shape.texture)
        self.fill = np.zeros((side, side), np.float32)
        self.extra = np.zeros((side, side), np.float32)
        self.lateral = shape.view == "LATERAL"
        self._draw_soft_tissue()
        self._draw_lungs()
        self._draw_bones()

    def opacify(self, mask: np.ndarray, amount: float) -> None:
        """Replace the share `amount` of the air under the mask."""
        self.fill = 1 - (1 - self.fill) * (1 - np.float32(min(amount, 1)) * mask)

    # The normal chest.

    def _draw_soft_tissue(self) -> None:
        shape = self.shape
        wide = 0.5 * (shape.body.fat - 0.5) * 0.08
        if self.lateral:
            outline = [
                (0.47, -0.05), (0.44, 0.07), (0.33, 0.16), (0.19 - wide, 0.33), (0.14 - wide, 0.55),
                (0.13 - wide, 0.8), (0.13, 1.05), (0.86, 1.05), (0.87 + wide, 0.75),
                (0.88 + wide, 0.5), (0.84, 0.25), (0.74, 0.1), (0.66, -0.05),
            ]  # fmt: skip
        else:
            half = [
                (0.12, -0.06), (0.125, 0.04), (0.22, 0.085), (0.36, 0.115), (0.47 + wide, 0.19),
                (0.53 + wide, 0.33), (0.455 + wide, 0.44), (0.445 + wide, 0.62),
                (0.44 + wide, 0.85), (0.45 + wide, 1.06),
            ]  # fmt: skip
            outline = [(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in half[::-1]]
        body = self.area(curve(outline, closed=True), 0.006)
        thick = self.soften(body, 0.05)
        heart = _LATERAL_HEART if self.lateral else _HEART
        center = np.array([0.53, 0.58]) if not self.lateral else np.array([0.4, 0.57])
        scale = np.array([shape.mediastinum.heart, 1 + 0.45 * (shape.mediastinum.heart - 1)])
        heart = center + (heart - center) * scale
        heart[:, 1] += np.mean(shape.thorax.domes) - 0.70  # it rests on the diaphragm
        heart[:, 0] += shape.mediastinum.tilt * (heart[:, 1] - center[1])
        self.heart_outline = curve(heart, closed=True)
        self.heart = self.area(self.heart_outline, 0.009)
        self.body = body
        self.tissue = body * 0.32 + thick * 0.36
        m, knob = shape.mediastinum.width, 0.02 * shape.mediastinum.aorta
        if self.lateral:  # vessels in front of the spine, and behind the sternum if widened
            outline = [(0.52 - 0.04 * m, 0.1), (0.53 - 0.1 * m**2, 0.34), (0.57, 0.42), (0.58, 0.1)]
            self.mediastinum = 0.45 * self.area(curve(outline, closed=True), 0.02)
        else:
            outline = [
                (-0.05 * m, 0.02), (-0.052 * m, 0.2), (-0.058 * m, 0.34), (-0.055, 0.6),
                (0.055, 0.6), (0.075 * m, 0.41), (0.066 * m, 0.36), (0.066 * m + knob, 0.30),
                (0.055 * m, 0.24), (0.05 * m, 0.02),
            ]  # fmt: skip
            self.mediastinum = self.area(curve(outline, closed=True) + np.array([0.5, 0]), 0.008)
        rows = np.linspace(0, 1, self.side, dtype=np.float32)[:, None]
        self.tissue += 0.22 * np.clip((rows - 0.5) / 0.35, 0, 1) * thick  # the abdomen is thick
        self.tissue += np.float32(0.14) * np.maximum(self.heart, 0.85 * self.mediastinum)
        if shape.body.breasts and not self.lateral:
            for x in (0.24, 0.76):
                breast = self.blob((x, 0.62), (0.145, 0.135), hard=0.35)
                self.tissue += np.float32(0.1 * shape.body.breasts) * breast
        if shape.body.gas and not self.lateral:
            at = (0.66, shape.thorax.domes[1] + 0.075)
            bubble = self.blob(
                at, (0.03 + 0.035 * shape.body.gas, 0.025 + 0.02 * shape.body.gas), hard=0.5
            )
            self.extra -= np.float32(0.16 + 0.12 * shape.body.gas) * bubble

    def _draw_lungs(self) -> None:
        shape, rng = self.shape, self.texture
        self.lung_masks = [self.area(lung.outline(), 0.005) for lung in self.lungs]
        lung = np.maximum(*self.lung_masks)
        hidden = 1 - (1 - np.float32(0.8) * self.heart) * (1 - self.mediastinum)
        self.air = np.float32(shape.lungs.air) * lung * (1 - hidden)
        self.air *= 0.9 + 0.2 * self.cloud(rng, 0.09)
        trunks, branches, twigs = [], [], []
        for side, lung in enumerate(self.lungs):
            count, sign = 11, (-1, 1)[side]
            fan = np.linspace(-1.35, 1.4, count) + rng.normal(0, 0.13, count)  # radians
            if self.lateral:
                fan = np.linspace(-np.pi, np.pi, count)
            reach = np.cumsum(np.full((count, 6), 0.04) * rng.uniform(0.75, 1.25, (count, 1)), 1)
            bend = fan[:, None] + np.cumsum(rng.normal(0, 0.1, (count, 6)), 1)
            path = np.stack([sign * np.cos(bend) * reach, np.sin(bend) * reach * 1.2], 2)
            path = np.concatenate([np.zeros((count, 1, 2)), path], 1) + lung.hilum
            trunks += list(curve(path[:, :4], steps=3))
            branches += list(curve(path[:, 3:], steps=3))
            fork = np.repeat(bend[:, 1:6].reshape(-1), 2) + np.tile([-0.5, 0.5], 5 * count)
            fork += rng.normal(0, 0.15, fork.shape)
            start = np.repeat(path[:, 2:].reshape(-1, 2), 2, axis=0)
            step = np.stack([sign * np.cos(fork), np.sin(fork)], 1)
            step *= rng.uniform(0.03, 0.075, (len(step), 1))
            twigs += list(np.stack([start, start + step], 1))
        vessels = np.float32(0.30) * self.lines(trunks, 0.0095, 0.003)
        vessels = np.maximum(vessels, np.float32(0.21) * self.lines(branches, 0.006, 0.002))
        vessels = np.maximum(vessels, np.float32(0.13) * self.lines(twigs, 0.004, 0.0015))
        self.vessels = np.float32(shape.lungs.vessels) * vessels
        self.hila = []
        for side, lung in enumerate(self.lungs):
            size = 0.8 + 0.2 * shape.lungs.hila[side]
            hilum = self.blob(lung.hilum, (0.028 * size, 0.062 * size), (0.25, -0.25)[side], 0.1)
            self.hila.append(hilum)
            self.opacify(hilum, 0.42 * shape.lungs.hila[side])

    def _draw_bones(self) -> None:
        shape, bones = self.shape, np.float32(self.shape.body.bones)
        tops = shape.body.ribs + 0.058 * np.arange(10)
        if self.lateral:
            self.ribs = [curve([(0.8, y), (0.6, y + 0.05), (0.4, y + 0.15), (0.24, y + 0.26)])
                         for y in tops - 0.03]  # fmt: skip
            backbone = [(0.66, 0), (0.71, 0.2), (0.77, 0.45), (0.78, 0.7), (0.73, 1)]
            self.extra += np.float32(0.09) * self.lines([curve(backbone)], 0.075, 0.006) * bones
            self.extra += np.float32(0.05) * self.lines(self.ribs, 0.013, 0.002) * bones
            self.clavicles = self.ribs[:2]
            return
        self.ribs, front = [], []
        reach = np.interp(np.clip((tops + 0.05 - shape.thorax.apex) / 0.66, 0, 1), _DOWN, _OUTER)
        reach = reach * shape.thorax.width + 0.008
        slope = np.linspace(0.0, 0.055, 10)
        for sign in (-1, 1):
            d = np.stack([np.full(10, 0.028), reach * 0.42, reach * 0.8, reach, reach - 0.004], 1)
            y = tops[:, None] + np.array([0.0, -0.012, 0.014, 0.066, 0.115])
            y = y + slope[:, None] * np.array([0, 0.5, 1, 1.2, 1.3])
            self.ribs += list(curve(np.stack([0.5 + sign * d, y], 2), steps=4))
            top, wall = tops[1:8] + 0.1, reach[1:8]
            d = np.stack([wall - 0.004, wall * 0.85, wall * 0.62, np.full(7, 0.15)], 1)
            y = top[:, None] + np.array([0.0, 0.052, 0.085, 0.098])
            front += list(curve(np.stack([0.5 + sign * d, y], 2), steps=4))
        ribs = self.lines(self.ribs, 0.019)
        edge = cv2.morphologyEx(ribs, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        bone = np.float32(0.062) * self.soften(ribs, 0.003) + np.float32(0.032) * edge
        bone += np.float32(0.036) * self.lines(front, 0.024, 0.005)
        self.clavicles = [
            curve([(0.5 + s * 0.035, 0.205), (0.5 + s * 0.12, 0.165), (0.5 + s * 0.22, 0.15),
                   (0.5 + s * 0.31, 0.115), (0.5 + s * 0.37, 0.118)]) for s in (-1, 1)
        ]  # fmt: skip
        clavicles = self.lines(self.clavicles, 0.027)
        edge = cv2.morphologyEx(clavicles, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        bone += np.float32(0.085) * self.soften(clavicles, 0.003) + np.float32(0.03) * edge
        for s in (-1, 1):
            blade = [(0.5 + s * x, y) for x, y in ((0.40, 0.16), (0.31, 0.24), (0.33, 0.42), (0.43, 0.27))]  # fmt: skip # noqa: E501
            bone += np.float32(0.045) * self.area(curve(blade, closed=True), 0.006)
            bone += np.float32(0.07) * self.blob((0.5 + s * 0.44, 0.17), (0.05, 0.055), hard=0.5)
        rows = np.arange(self.side, dtype=np.float32) / self.side
        discs = 0.75 + 0.25 * np.tanh(4 * np.sin(2 * np.pi * rows / 0.062) + 2)
        spine = self.area([(0.465, 0), (0.535, 0), (0.542, 1), (0.458, 1)], 0.004)
        bone += np.float32(0.05) * spine * discs[:, None].astype(np.float32)
        windpipe = [[(0.5, -0.02), (0.5, 0.2), (0.503, 0.335)], [(0.503, 0.33), (0.44, 0.4)],
                    [(0.503, 0.33), (0.57, 0.395)]]  # fmt: skip
        self.extra -= np.float32(0.1) * self.lines([curve(p) for p in windpipe], 0.028, 0.006)
        self.extra += bone * bones

    def density(self) -> np.ndarray:
        """Return the density of all layers: 0 is air, about 1 the mediastinum."""
        air = self.air * (1 - self.fill) * (1 - np.clip(self.vessels, 0, 0.9))
        return np.maximum((self.tissue - air + self.extra) * self.body, 0)
