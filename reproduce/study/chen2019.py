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
from reproduce.study.contrasts import Contrast, Point, damaged
from reproduce.study.measures import Effect, Panel, auc
from reproduce.study.wording import of, trend, verdict

NAMES, TREE = label_tree.HIERARCHIES["plco"]
CONFIG = script.Config(
    backbone="tiny", weights="none", size=48, resize=54, epochs=6, learning_rate=2e-3,
    finetune_epochs=3, finetune_learning_rate=5e-4,
)  # fmt: skip
LEAF = auc(Group("leaf", [NAMES[label] for label in label_tree.leaves(TREE)]))
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


def _gain(name: str, question: str, knob: str, points, conclude, **more) -> Contrast:
    """A contrast of two-stage training and flat training as long."""
    panel = Panel(
        "gain in mean leaf AUC",
        LEAF,
        [
            Effect("HLUP-finetune − BR-all of the same budget", TWO_STAGES, FLAT),
            Effect("HLCP alone − BR-all of the same budget", "HLCP", FLAT),
        ],
    )
    wanted = [TWO_STAGES, FLAT]
    return Contrast(
        name, script, "plco", question, knob, points, script.rows, wanted, [panel], conclude, **more
    )


def _of_deleted(effects: pd.DataFrame) -> str:
    both, first = (of(effects, name) for name in ("HLUP-finetune", "HLCP"))
    return (
        f"Training along the tree in two stages against flat training of the same budget: "
        f"{verdict(both)}, from {trend(both)} of deleted labels. Its first stage alone: "
        f"{verdict(first)}, from {trend(first)}."
    )


def _of_levels(effects: pd.DataFrame) -> str:
    both, first = (of(effects, name) for name in ("HLUP-finetune", "HLCP"))
    return (
        f"Training along the tree in two stages against flat training of the same budget: "
        f"{verdict(both)}, from {trend(both)} levels; on one level it is flat training in two "
        f"stages. Its first stage alone: {verdict(first)}, from {trend(first)}."
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
        "chen2019-deleted",
        "Does training along the tree help where labels are deleted?",
        "share of deleted labels",
        [
            Point(share, CONFIG, damage=damaged(functools.partial(delete, share)))
            for share in (0.0, 0.3, 0.5, 0.7)
        ],
        _of_deleted,
    ),
    _gain(
        "chen2019-levels",
        "Is it the tree that helps, or the second stage?",
        "levels of the tree",
        [Point(levels, replace(CONFIG, levels=levels), folder="all") for levels in (1, 2, 3, 4)],
        _of_levels,
    ),
    Contrast(
        "chen2019-rare",
        script,
        "plco",
        "What does the exact product loss gain over the naive and the rescaled one?",
        "negatives to a positive, each leaf",
        [Point(odds, CONFIG, Knobs(label_noise=0, odds=odds)) for odds in (5, 20, 80, 200)],
        script.rows,
        ["HLUP", "HLUP (naive)", "HLUP (rescale)"],
        [
            Panel(
                "gain in mean leaf AUC",
                LEAF,
                [
                    Effect("exact − naive", "HLUP", "HLUP (naive)"),
                    Effect("exact − rescaled", "HLUP", "HLUP (rescale)"),
                ],
            )
        ],
        _of_rare,
        log=True,
    ),
]
CLAIMS = {  # a claim of the paper -> the contrast that says when it holds
    "two-stages-boost": "chen2019-deleted",
    "finetune-beats-br-leaf": "chen2019-deleted",
    "finetune-beats-br-all": "chen2019-deleted",
    "best-of-all": "chen2019-deleted",
    "finetune-beats-hlup": "chen2019-levels",
    "stable-beats-rescale": "chen2019-rare",
    "stable-beats-naive": "chen2019-rare",
    "stable-equals-naive-finetuned": "chen2019-rare",
}
