"""Chen et al. 2019: when does training along the tree beat flat training of equal budget?

Labels are deleted as in the lists that the authors released: at a node whose label is positive,
everything below it goes at once, with a chance of share^levels, `levels` the longest way down.
"""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd

from data import label_tree, plco
from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import chen2019 as script
from reproduce.study.contrasts import PIXELS, Contrast, Images, Point, Why, damaged
from reproduce.study.measures import Effect, Panel, auc
from reproduce.study.wording import of, trend, verdict

NAMES, TREE = label_tree.HIERARCHIES["plco"]
CONFIG = script.Config(
    backbone="tiny", weights="none", size=PIXELS, resize=36, batch_size=64, epochs=8,
    learning_rate=4e-3, finetune_epochs=4, finetune_learning_rate=1e-3,
)  # fmt: skip
LEAF = auc(Group("leaf", [NAMES[label] for label in label_tree.leaves(TREE)]))
TREE_HELPS = Why("chen2019-deleted", "HLUP-finetune")
TWO_STAGES, FLAT = "HLUP-finetune", "BR-all" + script.TWIN


def delete(share: float, frame: pd.DataFrame) -> None:
    """Mark labels as deleted, in place, by the rule of the released lists."""
    truth, rng = frame[list(NAMES)].to_numpy() == 1, np.random.default_rng(round(1000 * share))
    parents, ancestors = label_tree.parent_matrix(TREE), label_tree.ancestor_matrix(TREE)
    below = ancestors.T > 0  # [node, label]: the node itself, or below it
    level = ancestors.sum(axis=1)
    kept = np.ones(truth.shape, bool)
    for node in np.flatnonzero(parents.any(axis=0)):
        height = level[below[node]].max() - level[node]
        gone = truth[:, node] & (rng.random(len(frame)) < share**height)
        kept &= ~(gone[:, None] & below[node] & (np.arange(len(NAMES)) != node))
    frame[list(plco.PRESERVE)] = kept.astype(float)


def _gain(**own) -> Contrast:
    """A contrast of two-stage training and flat training as long."""
    panel = Panel(
        "gain in mean leaf AUC",
        LEAF,
        [
            Effect("HLUP-finetune − BR-all of the same budget", TWO_STAGES, FLAT),
            Effect("HLCP alone − BR-all of the same budget", "HLCP", FLAT),
        ],
    )
    return Contrast(
        script=script,
        images=Images("plco"),
        rows=script.rows,
        wanted=[TWO_STAGES, FLAT],
        panels=[panel],
        **own,
    )


def _of_two_stages(unit: str, effects: pd.DataFrame) -> str:
    both, first = (of(effects, name) for name in ("HLUP-finetune", "HLCP"))
    return (
        f"Training along the tree in two stages against flat training of the same budget: "
        f"{verdict(both)}, from {trend(both)} {unit}. Its first stage alone: {verdict(first)}, "
        f"from {trend(first)}."
    )


def _of_rare(effects: pd.DataFrame) -> str:
    naive, rescaled = (of(effects, f"exact − {name}") for name in ("naive", "rescaled"))
    return (
        f"Trained from the start, the exact product loss against the naive one: {verdict(naive)}, "
        f"from {trend(naive)}; against the rescaled one: {verdict(rescaled)}, from "
        f"{trend(rescaled)}."
    )


CONTRASTS = [
    _gain(
        name="chen2019-deleted",
        question="Does training along the tree help where labels are deleted?",
        knob="share of deleted labels",
        points=[
            Point(share, CONFIG, damage=damaged(functools.partial(delete, share)))
            for share in (0.0, 0.3, 0.5, 0.7)
        ],
        conclude=functools.partial(_of_two_stages, "of deleted labels"),
    ),
    _gain(
        name="chen2019-levels",
        question="Is it the tree that helps, or the second stage?",
        knob="levels of the tree",
        points=[
            Point(levels, replace(CONFIG, levels=levels), folder="all") for levels in (1, 2, 3, 4)
        ],
        conclude=functools.partial(
            _of_two_stages, "levels; on one level it is flat training in two stages"
        ),
    ),
    Contrast(
        name="chen2019-rare",
        script=script,
        question="What does the exact product loss gain over the naive and the rescaled one?",
        knob="negatives to a positive, each leaf",
        points=[Point(odds, CONFIG, Knobs(label_noise=0, odds=odds)) for odds in (5, 30, 200)],
        images=Images("plco"),
        rows=script.rows,
        wanted=["HLUP", "HLUP (naive)", "HLUP (rescale)"],
        panels=[
            Panel(
                "gain in mean leaf AUC",
                LEAF,
                [
                    Effect("exact − naive", "HLUP", "HLUP (naive)"),
                    Effect("exact − rescaled", "HLUP", "HLUP (rescale)"),
                ],
            )
        ],
        conclude=_of_rare,
        log=True,
    ),
]
CLAIMS = {
    "two-stages-boost": TREE_HELPS,
    "finetune-beats-br-leaf": TREE_HELPS,
    "finetune-beats-br-all": TREE_HELPS,
    "best-of-all": TREE_HELPS,
    "finetune-beats-hlup": Why("chen2019-levels", "HLUP-finetune"),
    "stable-beats-rescale": Why("chen2019-rare", "exact − rescaled"),
    "stable-beats-naive": Why("chen2019-rare", "exact − naive"),
    "stable-equals-naive-finetuned": Why("chen2019-rare", "exact − naive"),
}
