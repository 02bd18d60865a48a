"""Asadi et al. 2025: what a penalty does where training labels break the hierarchy.

Where a child is positive, the labels above it that CheXpert releases (No Finding, Enlarged
Cardiomediastinum, Consolidation) are turned round with some chance; the other high-level labels are
made from their children and cannot break.
"""

import functools

import numpy as np
import pandas as pd

from data import label_tree, labels
from evaluation.metrics import Group
from reproduce import asadi2025 as script
from reproduce.study.contrasts import PIXELS, Contrast, Images, Point, Why, damaged
from reproduce.study.measures import (
    Effect,
    Panel,
    auc,
    finding_errors,
    of_images,
    violations_of_asadi,
)
from reproduce.study.wording import of, trend, verdict

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


def break_hierarchy(share: float, frame: pd.DataFrame) -> None:
    """Turn labels above a positive child to negative, in place, with a chance of `share`."""
    rng = np.random.default_rng(round(1000 * share))
    names = labels.ASADI[:14]
    truth = frame[list(names)].to_numpy() == 1
    for parent in np.flatnonzero(PARENTS[:14, :14].any(axis=0)):
        has_child = (truth & (PARENTS[:14, parent] > 0)).any(axis=1)
        wrong = has_child & (rng.random(len(frame)) < share)
        frame.loc[wrong, names[parent]] = 0.0
    ill = truth[:, np.array(names) != labels.NO_FINDING].any(axis=1)
    frame.loc[ill & (rng.random(len(frame)) < share), labels.NO_FINDING] = 1.0


def _conclude(effects: pd.DataFrame) -> str:
    broken, mean = (of(effects, "with a gradient", panel) for panel in ("violations", "mean AUC"))
    released = of(effects, "as released", "violations")
    doubt = of(effects, "spread")
    return (
        "A penalty with a gradient against plain cross-entropy: violations an image are "
        f"{verdict(broken)}, from {trend(broken)}; mean AUC is {verdict(mean)}, from "
        f"{trend(mean)}. As released, without a gradient: violations are {verdict(released)}. In "
        "finding errors, the spread of dropout passes against the entropy of their mean: "
        f"{verdict(doubt, 'better', 'worse')}, from {trend(doubt)}."
    )


def _differences() -> list[Effect]:
    return [
        Effect("with a gradient (ours) − BCE", OURS, "BCE"),
        Effect("as released − BCE", RELEASED, "BCE"),
    ]


CONTRASTS = [
    Contrast(
        name="asadi2025-broken",
        script=script,
        question="What does a penalty change where training labels break the hierarchy?",
        knob="share of parents labelled absent over a present child",
        points=[
            Point(share, CONFIG, damage=damaged(functools.partial(break_hierarchy, share)))
            for share in (0.0, 0.1, 0.2, 0.3)
        ],
        images=Images("chexpert", {"labels": "visualchexbert"}),
        rows=script.rows,
        wanted=["BCE", RELEASED, OURS, script.MC],
        panels=[
            Panel("mean AUC of 21 labels", auc(Group("mean")), _differences()),
            Panel("violations an image", of_images(violations_of_asadi), _differences()),
            Panel(
                "AUROC of finding errors",
                finding_errors(script.MC),
                [Effect("spread of dropout − entropy", "spread", "entropy")],
            ),
        ],
        conclude=_conclude,
    )
]
CLAIMS = dict.fromkeys(
    ("data-driven-improves-high-level", "data-driven-improves-several"),
    Why("asadi2025-broken", "with a gradient", "mean AUC"),
)
