"""Ge et al. 2018: when is the fine-grained loss worth more than any second network?

Seven findings are drawn alone, one image in five has each. They come together more and more, or
they look more and more like the one that each is hard to tell from.
"""

import pandas as pd

from data.phantom.findings import LOOK_ALIKE
from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import ge2018 as script
from reproduce.study.contrasts import Contrast, Point
from reproduce.study.measures import Effect, Panel, auc
from reproduce.study.wording import of, trend, verdict

CONFIG = script.Config(
    resnet="tiny_residual", densenet="tiny", vgg="tiny_plain", weights="none", size=48, resize=54,
    epochs=6, learning_rate=2e-3, projection=64, projection_densenet=64, reduce=64,
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


def _contrast(name: str, question: str, knob: str, knobs: dict[float, Knobs]) -> Contrast:
    points = [Point(value, CONFIG, each) for value, each in knobs.items()]
    wanted = [FUSION, CONTROL]
    return Contrast(
        name, script, "chestxray14", question, knob, points, script.rows, wanted, _panels(),
        _conclude,
    )  # fmt: skip


def _drawn(**more: float) -> Knobs:
    return Knobs(label_noise=0, odds=4, findings=FINDINGS, **more)


CONTRASTS = [
    _contrast(
        "ge2018-together",
        "Does the multi-label loss help where findings come together?",
        "how much findings come together",
        {value: _drawn(together=value, alike=0.5) for value in (0.0, 0.4, 0.8)},
    ),
    _contrast(
        "ge2018-alike",
        "Does the fine-grained architecture help where findings look alike?",
        "how much findings look alike",
        {value: _drawn(alike=value) for value in (0.0, 0.5, 0.8)},
    ),
]
CLAIMS = {
    "f-msml-improves-the-baseline": "ge2018-together",
    "f-msml-beats-bilinear": "ge2018-together",
}
