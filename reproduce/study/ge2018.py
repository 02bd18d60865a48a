"""Ge et al. 2018: when is the fine-grained loss worth more than any second network?

Seven findings are drawn alone, one image in five has each. They come together more and more, or
they look more and more like the one that each is hard to tell from.
"""

import pandas as pd

from data.phantom.findings import LOOK_ALIKE
from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import ge2018 as script
from reproduce.study.contrasts import PIXELS, Contrast, Images, Point, Why
from reproduce.study.measures import Effect, Panel, auc
from reproduce.study.wording import of, trend, verdict

CONFIG = script.Config(
    resnet="tiny_residual", densenet="tiny", vgg="tiny_plain", weights="none", size=PIXELS,
    resize=36, batch_size=64, epochs=8, learning_rate=4e-3, step=4, projection=64,
    projection_densenet=64, reduce=64,
)  # fmt: skip
FINDINGS = tuple(sorted({*LOOK_ALIKE, *LOOK_ALIKE.values()}))
FUSION, CONTROL = "R18 + R18-F-MSML", "R18 + R18 again"
EFFECTS = [
    Effect("R18 + R18-F-MSML − R18 + R18", FUSION, CONTROL),
    Effect("R18-F-MSML alone − R18", "R18-F-MSML", "R18"),
    Effect("R18 + R18 − R18", CONTROL, "R18"),
]


def _panels() -> list[Panel]:
    return [
        Panel("mean AUC", auc(Group("drawn findings", FINDINGS)), EFFECTS),
        Panel(
            "D: mean AUC against images with other findings",
            auc(Group("drawn findings (D)", FINDINGS, negatives="diseased")),
            EFFECTS,
        ),
    ]


def _conclude(effects: pd.DataFrame) -> str:
    fused, alone, second = (of(effects, each.name, "D:") for each in EFFECTS)
    return (
        "In telling a finding from others (D), F-MSML beside R18 against a second R18 beside it: "
        f"{verdict(fused)}, from {trend(fused)}. F-MSML alone against R18: {verdict(alone)}, from "
        f"{trend(alone)}. What a second R18 adds to R18: {verdict(second)}, from {trend(second)}."
    )


def _contrast(knobs: dict[float, Knobs], **own) -> Contrast:
    return Contrast(
        script=script,
        points=[Point(value, CONFIG, each) for value, each in knobs.items()],
        images=Images("chestxray14"),
        rows=script.rows,
        wanted=[FUSION, CONTROL],
        panels=_panels(),
        conclude=_conclude,
        **own,
    )


def _drawn(**more: float) -> Knobs:
    return Knobs(label_noise=0, odds=4, findings=FINDINGS, **more)


CONTRASTS = [
    _contrast(
        {value: _drawn(together=value, alike=0.5) for value in (0.0, 0.4, 0.8)},
        name="ge2018-together",
        question="Does the multi-label loss help where findings come together?",
        knob="how much findings come together",
    ),
    _contrast(
        {value: _drawn(alike=value) for value in (0.0, 0.5, 0.8)},
        name="ge2018-alike",
        question="Does the fine-grained architecture help where findings look alike?",
        knob="how much findings look alike",
    ),
]
CLAIMS = dict.fromkeys(
    ("f-msml-improves-the-baseline", "f-msml-beats-bilinear"),
    Why("ge2018-together", EFFECTS[0].name, "mean AUC"),
)
