"""Chen et al. 2019: when does training along the tree beat flat training of equal budget?

Labels are deleted as in the lists that the authors released: at a node whose label is positive, all
labels below it are deleted together, with probability share^levels, where `levels` is the longest
way down.
"""

import functools

import numpy as np
import pandas as pd

from data import label_tree, plco
from evaluation.metrics import Group
from reproduce import chen2019 as script
from reproduce.study.contrasts import PIXELS, Contrast, Why
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import select, verdict

NAMES, TREE = label_tree.HIERARCHIES["plco"]
CONFIG = script.Config(
    backbone="tiny",
    weights="none",
    size=PIXELS,
    resize=36,
    batch_size=64,
    epochs=8,
    learning_rate=4e-3,
    finetune_epochs=4,
    finetune_learning_rate=1e-3,
)
LEAF_AUC = AUC(Group("leaf", tuple(NAMES[label] for label in label_tree.leaves(TREE))))
TWO_STAGES, FLAT = "HLUP-finetune", "BR-all" + script.TWIN
TWO_STAGE_GAIN = Panel(
    "gain in mean leaf AUC",
    LEAF_AUC,
    (
        Effect("HLUP-finetune − BR-all of the same budget", TWO_STAGES, FLAT),
        Effect("HLCP alone − BR-all of the same budget", "HLCP", FLAT),
    ),
)
LOSS_GAIN = Panel(
    "gain in mean leaf AUC",
    LEAF_AUC,
    (
        Effect("exact − naive", "HLUP", "HLUP (naive)"),
        Effect("exact − rescaled", "HLUP", "HLUP (rescale)"),
    ),
)


def delete(frame: pd.DataFrame, share: float) -> None:
    """Mark labels as deleted, in place, by the rule of the released lists."""
    truth, rng = frame[list(NAMES)].to_numpy() == 1, np.random.default_rng(round(1000 * share))
    parents, ancestors = label_tree.parent_matrix(TREE), label_tree.ancestor_matrix(TREE)
    below = ancestors.T > 0  # [node, label]: the label is the node itself or below it
    level = ancestors.sum(axis=1)
    kept = np.ones(truth.shape, bool)
    for node in np.flatnonzero(parents.any(axis=0)):
        height = level[below[node]].max() - level[node]
        deleted = truth[:, node] & (rng.random(len(frame)) < share**height)
        kept &= ~(deleted[:, None] & below[node] & (np.arange(len(NAMES)) != node))
    frame[list(plco.PRESERVE)] = kept.astype(float)


def conclude_two_stages(note: str, effects: pd.DataFrame) -> str:
    both, first = (select(effects, name) for name in ("HLUP-finetune", "HLCP"))
    return (
        "Two stages along the tree against flat training of the same budget: "
        f"{verdict(both)}{note}. The first stage alone: {verdict(first)}."
    )


def conclude_losses(effects: pd.DataFrame) -> str:
    naive, rescaled = (select(effects, f"exact − {name}") for name in ("naive", "rescaled"))
    return (
        f"The exact loss against the naive one, both without fine-tuning: {verdict(naive)}; "
        f"against the rescaled one: {verdict(rescaled)}."
    )


CONTRASTS = [
    Contrast(
        name="chen2019-deleted",
        script=script,
        question="Does training along the tree help where labels are deleted?",
        knob="share of deleted labels",
        values=(0.0, 0.3, 0.5, 0.7),
        dataset="plco",
        config=CONFIG,
        damage=delete,
        wanted=(TWO_STAGES, FLAT),
        panels=(TWO_STAGE_GAIN,),
        conclude=functools.partial(conclude_two_stages, ""),
    ),
    Contrast(
        name="chen2019-levels",
        script=script,
        question="Is it the tree that helps, or the second stage?",
        knob="levels of the tree",
        values=(1, 2, 3, 4),
        dataset="plco",
        config=CONFIG,
        setting="levels",
        wanted=(TWO_STAGES, FLAT),
        panels=(TWO_STAGE_GAIN,),
        conclude=functools.partial(
            conclude_two_stages, "; one level is flat training in two stages"
        ),
    ),
    Contrast(
        name="chen2019-rare",
        script=script,
        question="What does the exact product loss gain over the naive and the rescaled one?",
        knob="negatives to a positive, each leaf",
        values=(5, 30, 200),
        dataset="plco",
        config=CONFIG,
        drawn="odds",
        wanted=("HLUP", "HLUP (naive)", "HLUP (rescale)"),
        panels=(LOSS_GAIN,),
        conclude=conclude_losses,
        log=True,
    ),
]
TREE_HELPS = Why("chen2019-deleted", "HLUP-finetune")
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
