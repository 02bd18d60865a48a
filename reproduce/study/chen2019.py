"""Chen et al. 2019: when does training along the tree beat flat training of equal budget?

Labels are deleted as in the lists that the authors released: at a node whose label is positive, all
labels below it are deleted together, with probability share^levels, where `levels` is the longest
way down.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from data import label_tree, plco
from evaluation.metrics import Group
from reproduce import chen2019 as script
from reproduce.study.contrasts import PIXELS, Contrast
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import change, mean

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
GAIN = TWO_STAGE_GAIN.effects[0].name
FIRST = TWO_STAGE_GAIN.effects[1].name


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


def delete_at_random(frame: pd.DataFrame, share: float) -> None:
    """Mark as many values of each label as deleted, in place, in images drawn at random."""
    by_tree = frame.copy()
    delete(by_tree, share)
    rng = np.random.default_rng(round(1000 * share) + 1)
    for column in plco.PRESERVE:
        kept = by_tree[column].to_numpy()
        frame[column] = rng.permutation(kept)


def conclude_two_stages(effects: pd.DataFrame) -> str:
    return (
        "Two stages along the tree against flat training of the same budget, averaged over the "
        f"knob: {mean(effects, GAIN)}. Over the knob the gain changes by {change(effects, GAIN)}. "
        f"The first stage alone, with fewer epochs: {mean(effects, FIRST)}."
    )


def conclude_losses(effects: pd.DataFrame) -> str:
    return (
        "The exact loss against the naive one, both without fine-tuning, averaged over the knob: "
        f"{mean(effects, 'exact − naive')}; against the rescaled one: "
        f"{mean(effects, 'exact − rescaled')}. As findings get rarer these change by "
        f"{change(effects, 'exact − naive')} and {change(effects, 'exact − rescaled')}."
    )


TREE_CLAIMS = ("two-stages-boost", "finetune-beats-br-leaf", "finetune-beats-br-all", "best-of-all")
TWO_STAGE = Contrast(
    name="chen2019-deleted",
    script=script,
    question="Does training along the tree help where labels are deleted along it?",
    knob="share of deleted labels",
    values=(0.0, 0.35, 0.7),
    dataset="plco",
    config=CONFIG,
    damage=delete,
    wanted=(TWO_STAGES, FLAT),
    panels=(TWO_STAGE_GAIN,),
    conclude=conclude_two_stages,
    claims=TREE_CLAIMS,
)
CONTRASTS = [
    TWO_STAGE,
    replace(
        TWO_STAGE,
        name="chen2019-deleted-at-random",
        question="Does it help where as many labels are deleted at random?",
        values=(0.35, 0.7),
        damage=delete_at_random,
    ),
    replace(
        TWO_STAGE,
        name="chen2019-levels",
        question="Is it the tree that helps, or the second stage? (One level is a flat tree.)",
        knob="levels of the tree",
        values=(1, 4),
        damage=None,
        setting="levels",
        claims=("finetune-beats-hlup",),
    ),
    Contrast(
        name="chen2019-rare",
        script=script,
        question="What does the exact product loss gain over the naive and the rescaled one?",
        knob="negatives per positive, each leaf",
        values=(5, 30),
        dataset="plco",
        config=CONFIG,
        drawn="odds",
        wanted=("HLUP", "HLUP (naive)", "HLUP (rescale)"),
        panels=(LOSS_GAIN,),
        conclude=conclude_losses,
        claims=("stable-beats-rescale", "stable-beats-naive"),
        log=True,
    ),
]
