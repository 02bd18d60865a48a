"""Asadi et al. 2025: what consistency costs, and whether dropout finds errors.

In training, one parent in five is labelled absent over a present child. The knob is the scale of a
fixed penalty with a gradient. As released, the penalty is a constant without a gradient, so its
network trains as with plain cross-entropy; it is not in the contrast.

Parents that are labelled absent are those that CheXpert releases (No Finding, Enlarged
Cardiomediastinum, Consolidation). The other high-level labels are computed from their children.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from data import label_tree, labels
from evaluation.metrics import Group
from reproduce import asadi2025 as script
from reproduce.engine.rows import Row
from reproduce.study.contrasts import PIXELS, Contrast, row_named
from reproduce.study.measures import AUC, Effect, ErrorDetection, Panel, Violations
from reproduce.study.wording import at, mean

BROKEN = 0.2  # share of parents labelled absent over a present child
PENALISED = "BCE + penalty"


@dataclass(frozen=True)
class Config(script.Config):
    penalty: float = 0.5  # scale of the fixed penalty


CONFIG = Config(
    backbone="tiny",
    size=PIXELS,
    batch_size=64,
    epochs=8,
    learning_rate=4e-3,
    patience=8,
    dropout=0.3,
)
PARENTS = label_tree.parent_matrix(label_tree.ASADI)


def break_hierarchy(frame: pd.DataFrame, _: float, share: float = BROKEN) -> None:
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


def rows(config: Config, dataset: str) -> list[Row]:
    """Return plain cross-entropy, the same with the penalty, and dropout passes of the latter."""
    table = script.rows(config, dataset)
    plain = row_named(table, script.BASELINE)
    loss = partial(script.hbce, weights="fixed", scale=config.penalty, form="differentiable")
    passes = replace(row_named(table, script.MC), start_from=PENALISED)
    return [plain, replace(plain, name=PENALISED, loss=loss), passes]


def conclude(effects: pd.DataFrame) -> str:
    least, most = effects["knob"].min(), effects["knob"].max()
    above, decided = (at(effects, "BCE + penalty −", panel, most) for panel in PANELS[1:3])
    return (
        f"At a scale of {most:g}, the penalty changes the violations per image by {above}, and "
        f"those at .5 by {decided}. The mean AUC of 21 labels changes by "
        f"{at(effects, 'BCE + penalty −', PANELS[0], least)} at {least:g} and by "
        f"{at(effects, 'BCE + penalty −', PANELS[0], most)} at {most:g}. The deviation of dropout "
        "passes finds errors with an AUROC that differs from that of the entropy of their mean by "
        f"{mean(effects, 'deviation', PANELS[3])}."
    )


PANELS = (
    "mean AUC of 21 labels",
    "violations per image",
    "violations per image at .5",
    "AUROC of finding errors",
)
PENALTY = (
    Effect(f"{PENALISED} − BCE", PENALISED, script.BASELINE),
    Effect(f"{PENALISED} itself", PENALISED, ""),
)
CONTRASTS = [
    Contrast(
        name="asadi2025-penalty",
        script=script,
        question="How much AUC does a penalty on broken hierarchies cost?",
        knob="scale of the penalty",
        values=(0.1, 0.5, 2.0, 8.0),
        dataset="chexpert",
        labels="visualchexbert",
        config=CONFIG,
        damage=break_hierarchy,
        setting="penalty",
        rows=rows,
        wanted=(script.BASELINE, PENALISED, script.MC),
        panels=(
            Panel(PANELS[0], AUC(Group("mean")), PENALTY),
            Panel(PANELS[1], Violations(), PENALTY),
            Panel(PANELS[2], Violations(0.5), PENALTY),
            Panel(
                PANELS[3],
                ErrorDetection(script.MC),
                (Effect("deviation of dropout − entropy", "spread", "entropy"),),
            ),
        ),
        conclude=conclude,
        claims=("data-driven-improves-high-level", "data-driven-improves-several"),
        log=True,
        trade_off=True,
    )
]
