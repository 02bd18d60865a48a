"""Mo and Cai 2019: the value of the entropy weighting loss when findings are rare.

Only five findings are drawn. The knob is the number of negatives per positive in training; the test
set has four and the same images at every value.
"""

import pandas as pd

from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import mo2019 as script
from reproduce.study.contrasts import PIXELS, Contrast, Why
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import interval, select, verdict

CONFIG = script.Config(
    vgg="tiny_plain",
    resnet="tiny_residual",
    densenet="tiny",
    weights="none",
    size=PIXELS,
    batch_size=64,
    epochs=8,
    learning_rate=4e-3,
    normalise="network",
)
FINDINGS = ("Cardiomegaly", "Effusion", "Mass", "Pneumothorax", "Edema")
READINGS = {  # the figure's name of each row
    "plain cross-entropy": script.PLAIN,
    "A: eq. (2) as printed": script.PROPOSED,
    "B: as printed, after weighted CE": "DenseNet121 proposed loss after CE",
    "C: p held constant (ours)": script.OURS,
    "D: as printed + weighted CE": "DenseNet121 proposed loss + CE",
    "E: CE weighted by entropy": "DenseNet121 CE weighted by entropy",
}


def conclude(effects: pd.DataFrame) -> str:
    plain, repaired, printed = (select(effects, name) for name in ("plain", "C", "A"))
    rarest = effects[effects["knob"] == effects["knob"].max()]
    best = rarest.loc[rarest["value"].idxmax()]
    return (
        f"Against weighted cross-entropy: equation (2) as printed (A) is {verdict(printed)}; our "
        f"repair (C) is {verdict(repaired)}; plain cross-entropy is {verdict(plain)}. Where "
        f"findings are rarest, {best['effect']} is highest: {interval(best)}."
    )


CONTRASTS = [
    Contrast(
        name="mo2019-imbalance",
        script=script,
        question="Does the entropy weighting loss help where findings are rare?",
        knob="negatives to a positive, each finding",
        values=(1, 10, 50, 200),
        dataset="chestxray14",
        config=CONFIG,
        knobs=Knobs(label_noise=0, findings=FINDINGS, odds=1),
        drawn="odds",
        wanted=(script.BASELINE, *READINGS.values()),
        panels=(
            Panel(
                "lead over weighted cross-entropy, mean AUC",
                AUC(Group("drawn findings", FINDINGS)),
                tuple(Effect(name, row, script.BASELINE) for name, row in READINGS.items()),
            ),
        ),
        conclude=conclude,
        log=True,
    )
]
CLAIMS = dict.fromkeys(
    (
        "proposed-beats-all",
        "proposed-beats-baseline",
        "thirteen-labels-better",
        "rarest-three-labels-improve",
        "hernia-improved",
        "hernia-improved-most",
    ),
    Why("mo2019-imbalance", "A:"),
)
