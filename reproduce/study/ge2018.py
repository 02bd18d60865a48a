"""Ge et al. 2018: when is the fine-grained loss worth more than any second network?

Only seven findings are drawn, each in one image in five. They come together more and more often, or
look more and more like the finding that each is hard to distinguish from.
"""

import pandas as pd

from data.phantom.findings import LOOK_ALIKE
from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import ge2018 as script
from reproduce.study.contrasts import PIXELS, Contrast
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import change, mean

CONFIG = script.Config(
    resnet="tiny_residual",
    densenet="tiny",
    vgg="tiny_plain",
    weights="none",
    size=PIXELS,
    resize=36,
    batch_size=64,
    epochs=8,
    learning_rate=4e-3,
    step=4,
    projection=64,
    projection_densenet=64,
    reduce=64,
)
FINDINGS = tuple(sorted({*LOOK_ALIKE, *LOOK_ALIKE.values()}))
FUSION, CONTROL = "R18 + R18-F-MSML", "R18 + R18 again"
EFFECTS = (
    Effect("R18 + R18-F-MSML − R18 + R18", FUSION, CONTROL),
    Effect("R18-F-MSML alone − R18", "R18-F-MSML", "R18"),
    Effect("R18 + R18 − R18", CONTROL, "R18"),
)
PANELS = (
    Panel("mean AUC", AUC(Group("drawn findings", FINDINGS)), EFFECTS),
    Panel(
        "D: mean AUC against images with other findings",
        AUC(Group("drawn findings (D)", FINDINGS, negatives="diseased")),
        EFFECTS,
    ),
)


def conclude(effects: pd.DataFrame) -> str:
    fused, alone, second = (each.name for each in EFFECTS)
    return (
        f"By D, averaged over the knob, R18 fused with F-MSML against two R18: "
        f"{mean(effects, fused, 'D:')}; over the knob the difference changes by "
        f"{change(effects, fused, 'D:')}. F-MSML alone against R18: {mean(effects, alone, 'D:')}. "
        f"A second R18 is worth {mean(effects, second, 'D:')}."
    )


CONTRASTS = [
    Contrast(
        name="ge2018-together",
        script=script,
        question="Does the multi-label loss help where findings come together?",
        knob="how much findings come together",
        values=(0.0, 0.8),
        dataset="chestxray14",
        config=CONFIG,
        knobs=Knobs(label_noise=0, odds=4, findings=FINDINGS, alike=0.5),
        drawn="together",
        wanted=(FUSION, CONTROL),
        panels=PANELS,
        conclude=conclude,
        claims=("f-msml-improves-the-baseline", "f-msml-beats-bilinear"),
    ),
    Contrast(
        name="ge2018-alike",
        script=script,
        question="Does the fine-grained architecture help where findings look alike?",
        knob="how much findings look alike",
        values=(0.0, 0.8),
        dataset="chestxray14",
        config=CONFIG,
        knobs=Knobs(label_noise=0, odds=4, findings=FINDINGS),
        drawn="alike",
        wanted=(FUSION, CONTROL),
        panels=PANELS,
        conclude=conclude,
    ),
]
