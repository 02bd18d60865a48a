"""Mo and Cai 2019: what the entropy weighting loss is worth when findings are rare.

Five findings are drawn alone, each with so many negatives to a positive in training; the test set
has four to one whatever the training set has, and the same images at every value.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

import losses
from data.phantom.knobs import Knobs
from evaluation import probabilities
from evaluation.metrics import Group
from reproduce import mo2019 as script
from reproduce.engine.rows import Data, Readout, Row
from reproduce.study.contrasts import PIXELS, Contrast, Images, Point, Why, row_named
from reproduce.study.measures import Effect, Panel, auc
from reproduce.study.wording import interval, of, trend, verdict

CONFIG = script.Config(
    vgg="tiny_plain", resnet="tiny_residual", densenet="tiny", weights="none", size=PIXELS,
    batch_size=64, epochs=8, learning_rate=4e-3,
)  # fmt: skip
FINDINGS = ("Cardiomegaly", "Effusion", "Mass", "Pneumothorax", "Edema")
PLAIN = "DenseNet121 CE"
READINGS = {  # the figure's name of each row
    "plain cross-entropy": PLAIN,
    "A: eq. (2) as printed": script.PROPOSED,
    "B: as printed, after weighted CE": "DenseNet121 proposed loss after CE",
    "C: p held constant (ours)": script.OURS,
    "D: as printed + weighted CE": "DenseNet121 proposed loss + CE",
    "E: CE weighted by entropy": "DenseNet121 CE weighted by entropy",
}


def rows(config: script.Config, data: Data) -> Sequence[Row]:
    """The script's, and the cross-entropy without weights that the paper does not run."""
    table = script.rows(config, data)
    weighted = row_named(table, script.BASELINE)

    def bce():
        return losses.masking.MaskedBCE()

    one_by_one = Readout(lambda logits: probabilities.sigmoid(logits)[..., :14])
    plain = replace(weighted, name=PLAIN, loss=bce, readout=one_by_one)
    return [*table, plain]


def _conclude(effects: pd.DataFrame) -> str:
    plain, repaired, printed = (of(effects, name) for name in ("plain", "C", "A"))
    rarest = effects[effects["knob"] == effects["knob"].max()]
    best = rarest.loc[rarest["value"].idxmax()]
    return (
        f"Against weighted cross-entropy: equation (2) as printed (A) is {verdict(printed)}, from "
        f"{trend(printed)}; our repair (C) is {verdict(repaired)}, from {trend(repaired)}; plain "
        f"cross-entropy is {verdict(plain)}, from {trend(plain)}. Where findings are rarest, the "
        f"highest is {best['effect']}: {interval(best)}."
    )


CONTRASTS = [
    Contrast(
        name="mo2019-imbalance",
        script=script,
        question="Does the entropy weighting loss help where findings are rare?",
        knob="negatives to a positive, each finding",
        points=[
            Point(odds, CONFIG, Knobs(label_noise=0, odds=odds, findings=FINDINGS))
            for odds in (1, 10, 50, 200)
        ],
        images=Images("chestxray14"),
        rows=rows,
        wanted=[script.BASELINE, *READINGS.values()],
        panels=[
            Panel(
                "lead over weighted cross-entropy, mean AUC",
                auc(Group("drawn findings", FINDINGS)),
                [Effect(name, row, script.BASELINE) for name, row in READINGS.items()],
            )
        ],
        conclude=_conclude,
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
