"""Asadi et al. 2025: the effect of a penalty where training labels break the hierarchy.

Where a child is positive, each label above it that CheXpert releases (No Finding, Enlarged
Cardiomediastinum, Consolidation) is inverted with a given probability. The other high-level labels
are computed from their children and cannot break.
"""

import numpy as np
import pandas as pd

from data import label_tree, labels
from evaluation.metrics import Group
from reproduce import asadi2025 as script
from reproduce.study.contrasts import PIXELS, Contrast, Why
from reproduce.study.measures import AUC, Effect, ErrorDetection, Panel, violations
from reproduce.study.wording import select, verdict

CONFIG = script.Config(
    backbone="tiny",
    size=PIXELS,
    batch_size=64,
    epochs=8,
    learning_rate=4e-3,
    patience=8,
    dropout=0.3,
)
RELEASED, OURS = "HBCE fixed 0.5", "HBCE fixed 0.5 (differentiable)"
PARENTS = label_tree.parent_matrix(label_tree.ASADI)
PENALTIES = (
    Effect("with a gradient (ours) − BCE", OURS, "BCE"),
    Effect("as released − BCE", RELEASED, "BCE"),
)


def break_hierarchy(frame: pd.DataFrame, share: float) -> None:
    """Set labels above a positive child to negative, in place, with probability `share`."""
    rng = np.random.default_rng(round(1000 * share))
    names = labels.ASADI[:14]
    truth = frame[list(names)].to_numpy() == 1
    for parent in np.flatnonzero(PARENTS[:14, :14].any(axis=0)):
        has_child = (truth & (PARENTS[:14, parent] > 0)).any(axis=1)
        wrong = has_child & (rng.random(len(frame)) < share)
        frame.loc[wrong, names[parent]] = 0.0
    ill = truth[:, np.array(names) != labels.NO_FINDING].any(axis=1)
    frame.loc[ill & (rng.random(len(frame)) < share), labels.NO_FINDING] = 1.0


def conclude(effects: pd.DataFrame) -> str:
    broken, mean = (
        select(effects, "with a gradient", panel) for panel in ("violations", "mean AUC")
    )
    released = select(effects, "as released", "violations")
    doubt = select(effects, "spread")
    return (
        "A penalty with a gradient against plain cross-entropy: violations are "
        f"{verdict(broken)}; mean AUC is {verdict(mean)}. Without a gradient, as released: "
        f"violations are {verdict(released)}. The spread of dropout passes finds errors "
        f"{verdict(doubt, 'better', 'worse')}, compared with the entropy of their mean."
    )


CONTRASTS = [
    Contrast(
        name="asadi2025-broken",
        script=script,
        question="What does a penalty change where training labels break the hierarchy?",
        knob="share of parents labelled absent over a present child",
        values=(0.0, 0.1, 0.2, 0.3),
        dataset="chexpert",
        labels="visualchexbert",
        config=CONFIG,
        damage=break_hierarchy,
        wanted=("BCE", RELEASED, OURS, script.MC),
        panels=(
            Panel("mean AUC of 21 labels", AUC(Group("mean")), PENALTIES),
            Panel("violations an image", violations, PENALTIES),
            Panel(
                "AUROC of finding errors",
                ErrorDetection(script.MC),
                (Effect("spread of dropout − entropy", "spread", "entropy"),),
            ),
        ),
        conclude=conclude,
    )
]
CLAIMS = dict.fromkeys(
    ("data-driven-improves-high-level", "data-driven-improves-several"),
    Why("asadi2025-broken", "with a gradient", "mean AUC"),
)
