"""Mo and Cai 2019: does any reading of the entropy weighting loss help rare findings?

Only five findings are drawn. The knob is the number of negatives per positive in training; the test
set has four and the same images at every value. Readings A to C of equation (2), without another
cross-entropy, learn nothing at any value (docs/papers/mo2019.md), so D and E are compared. Focal
loss (Lin et al. 2017) is ours: it too gives confident answers less weight.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import mo2019 as script
from reproduce.engine.rows import Row
from reproduce.study.contrasts import PIXELS, Contrast, row_named
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import change, mean

CONFIG = script.Config(
    vgg="tiny_plain",
    resnet="tiny_residual",
    densenet="tiny",
    weights="none",
    size=PIXELS,
    batch_size=64,
    epochs=16,
    learning_rate=4e-3,
    normalise="network",
)
FINDINGS = ("Cardiomegaly", "Effusion", "Mass", "Pneumothorax", "Edema")
FOCAL = "focal loss"
READINGS = {  # the figure's name of each row
    "D: eq. (2) as printed + weighted CE": "DenseNet121 proposed loss + CE",
    "E: CE weighted by entropy": "DenseNet121 CE weighted by entropy",
    "plain cross-entropy": script.PLAIN,
    "focal": FOCAL,
}


def focal(train: np.ndarray):
    """Return focal loss with its authors' parameters; it weights positives by 1/4."""
    import keras

    return keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, from_logits=True)


def rows(config: script.Config, dataset: str) -> list[Row]:
    """Return the script's rows, and one with focal loss."""
    table = script.rows(config, dataset)
    return [*table, replace(row_named(table, script.PLAIN), name=FOCAL, loss=focal)]


def conclude(effects: pd.DataFrame) -> str:
    parts = [f"{name}: {mean(effects, name)}" for name in READINGS]
    return (
        f"Against weighted cross-entropy, averaged over the knob: {'; '.join(parts)}. From "
        f"{CONTRASTS[0].values[0]:g} to {CONTRASTS[0].values[-1]:g} negatives per positive these "
        f"change by {change(effects, 'D')} (D), {change(effects, 'E')} (E), "
        f"{change(effects, 'plain')} (plain) and {change(effects, 'focal')} (focal)."
    )


CONTRASTS = [
    Contrast(
        name="mo2019-imbalance",
        script=script,
        question="Does the entropy weighting loss help where findings are rare?",
        knob="negatives per positive, each finding",
        values=(10, 100),
        dataset="chestxray14",
        config=CONFIG,
        knobs=Knobs(label_noise=0, findings=FINDINGS, odds=1),
        drawn="odds",
        rows=rows,
        wanted=(script.BASELINE, *READINGS.values()),
        panels=(
            Panel(
                "lead over weighted cross-entropy, mean AUC",
                AUC(Group("drawn findings", FINDINGS)),
                tuple(Effect(name, row, script.BASELINE) for name, row in READINGS.items()),
            ),
        ),
        conclude=conclude,
        claims=("proposed-beats-baseline", "rarest-three-labels-improve"),
        log=True,
    )
]
