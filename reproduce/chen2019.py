"""Deep hierarchical multi-label classification of chest X-ray images.

Chen, Miao, Xu, Hager, Harrison. MIDL 2019. Tables 1 and 2, Figure 3.

    bash reproduce/chen2019.sh                          on drawn phantoms, minutes on a laptop
    bash reproduce/chen2019.sh --data-dir PLCO          the paper's, about 7 GPU hours *
    bash reproduce/chen2019.sh --data-dir PLCO --search learning_rate=3e-5,1e-4,3e-4
    bash reproduce/chen2019.sh --dataset chexpert --data-dir CheXpert-v1.0-small
    * estimated: 105 epochs of 62,000 images at 300 DenseNet-121 images a second, and validation.

A logit is that of a label's probability given its parent; the chain rule makes it unconditional.
Stage 1 (HLCP) trains a label on the images with a positive parent. Stage 2 (HLUP-finetune) trains
the product of probabilities along the path on all images, with a loss that is stable in float32.

Deviations, each explained in docs/papers/chen2019.md:
1. The paper states no training settings: one recipe for all rows, marked "unstated" below.
2. HLUP is computed in time linear in the path, equal to the paper's power set (--hlup powerset).
3. "Same budget" rows train one-stage rows as long as two-stage ones (claims-equal-budget.md).
4. On ChestX-ray14 and CheXpert the hierarchies are ours, and nothing compares with the paper.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

import losses
from data import label_tree, plco, policies, splits
from data.augment import Augment
from evaluation import hierarchy, probabilities
from reproduce.engine import dataset, flags, loop, schedules
from reproduce.engine.ranges import Backbone, BatchSize, Count, Levels, Pixels, Precision, Rate
from reproduce.engine.rows import Data, Fit, Readout, Row, Task, mean_auc, mean_auc_of
from reproduce.tables import chen2019 as tables
from reproduce.tables.chen2019 import TWIN

HIERARCHIES = {"plco": "plco", "chexpert": "chexpert-abnormal", "chestxray14": "chestxray14"}
ONLY_FOR = {"deleted": "plco", "uncertain": "chexpert"}  # settings of one dataset


@dataclass(frozen=True)
class Readings:
    """Which form of HLUP, and which labels."""

    hlup: Literal["exact", "powerset"] = "exact"  # eqs. 5-7; "powerset" is their printed form
    deleted: str = "0.0"  # §4: the share of deleted labels in the released PLCO lists
    uncertain: Literal["ones", "zeros", "ignore"] = "ones"  # ours, for CheXpert alone
    levels: Levels = 4  # §3; ours with fewer: a label's parent is its last ancestor above them


@dataclass(frozen=True)
class Config(Readings):
    backbone: Backbone = "densenet121"  # §2.1
    weights: str = "imagenet"  # §3
    size: Pixels = 224  # unstated; ours
    resize: Pixels = 256  # unstated; ours: training crops `size` out of it at random
    batch_size: BatchSize = 32  # unstated; ours
    epochs: Count = 10  # unstated; ours, for every first stage
    learning_rate: Rate = 1e-4  # unstated; ours, Adam
    finetune_epochs: Count = 5  # unstated; ours, all layers
    finetune_learning_rate: Rate = 1e-5  # unstated; ours
    precision: Precision = "float32"  # unstated; ours


DEMO = {"backbone": "tiny", "weights": "none", "size": 32, "resize": 36, "batch_size": 64,
        "epochs": 10, "learning_rate": 4e-3, "finetune_epochs": 4,
        "finetune_learning_rate": 1e-3}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """The sets, and why their scores cannot be compared with published ones."""
    if frame.attrs["dataset"] == "plco":  # §3: 70/10/20 by patient, as the authors drew it later
        test = (frame["split"] == "test").sum()
        return splits.as_released(frame), f"another split of PLCO: {test:,} test images, not 39,600"
    if frame.attrs["dataset"] == "chestxray14":
        return splits.held_out(frame, 1 / 8, seed=0, train="train_val"), "chestxray14, not PLCO"
    frontal = frame[frame["view"].str.startswith("Frontal")]
    return splits.held_out(frontal, 0.1, seed=0, test="valid"), "chexpert, not PLCO"


def rows(config: Config, data: Data) -> list[Row]:
    """Tables 1 and 2, and the controls of deviation 3."""
    names, whole = label_tree.HIERARCHIES[HIERARCHIES[data.dataset]]
    leaf, tree = label_tree.leaves(whole), label_tree.cut(whole, config.levels)
    parents, ancestors = label_tree.parent_matrix(tree), label_tree.ancestor_matrix(tree)
    truth = policies.hierarchy_targets(data.frame, HIERARCHIES[data.dataset], config.uncertain)
    targets = truth
    if data.dataset == "plco":  # deleted labels are unknown in training, as in Chen's extension
        preserved = data.frame[list(plco.PRESERVE)].to_numpy() == 1
        targets = label_tree.close(np.where(preserved, truth, np.nan), whole)

    def chain_rule(logits: np.ndarray, floor: float = 0.0) -> np.ndarray:  # eqs. 1 and 3
        return hierarchy.path_product(
            floor + (1 - floor) * probabilities.sigmoid(logits), ancestors
        )

    def bce():  # BR: binary relevance
        return losses.masking.MaskedBCE()

    def hlcp():  # eq. 2
        return losses.hierarchical.HLCP(parents)

    def hlup(form: str):  # eqs. 4-7, and §3's naive and rescaled forms
        return lambda: losses.hierarchical.HLUP(ancestors, form)

    exact, naive, rescale = map(hlup, (config.hlup, "naive", "rescale"))
    every = Task(names, targets, truth)
    leaves = Task([names[label] for label in leaf], targets[:, leaf], truth[:, leaf])
    rate, lower = map(schedules.constant, (config.learning_rate, config.finetune_learning_rate))
    select = mean_auc_of(leaf)  # §3: what the searches optimised
    first = Fit(config.epochs, rate, select, Augment(random_crop=True))
    finetune = replace(first, epochs=config.finetune_epochs, learning_rate=lower)
    flat, chain, network = Readout(), Readout(chain_rule), {"backbone": config.backbone}
    rescaled = Readout(lambda logits: chain_rule(logits, 0.02))  # §3: multiplicands in [0.02, 1]
    unused = [setting for setting, only in ONLY_FOR.items() if only != data.dataset]

    def row(name, task, loss, fit, readout, start_from="") -> Row:
        ignores = ("finetune_epochs", "finetune_learning_rate", *unused)
        if start_from:  # the row that it starts from has the others
            ignores = ("epochs", "learning_rate", *unused)
        return Row(name, task, loss, fit, readout, start_from, network=network, ignores=ignores)

    table = [
        row("BR-leaf", leaves, bce, replace(first, select=mean_auc), flat),
        row("BR-all", every, bce, first, flat),
        row("HLUP", every, exact, first, chain),
        row("HLCP", every, hlcp, first, chain),
        row("HLUP-finetune", every, exact, finetune, chain, "HLCP"),
        row("HLUP (naive)", every, naive, first, chain),
        row("HLUP (rescale)", every, rescale, first, rescaled),
        row("HLUP-finetune (naive)", every, naive, finetune, chain, "HLCP"),
        row("HLUP-finetune (rescale)", every, rescale, finetune, rescaled, "HLCP"),
    ]
    for each in [each for each in table if not each.start_from]:
        fit = replace(finetune, select=each.fit.select)
        table.append(row(each.name + TWIN, each.task, each.loss, fit, each.readout, each.name))
    return table


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, list(HIERARCHIES), ONLY_FOR)
    lists = {"deleted": config.deleted} if options.dataset == "plco" else {}
    data = dataset.load(options, config, split, rows, phantoms=8000, resize=config.resize, **lists)
    runs = loop.train("chen2019", rows, data, config, options)
    tables.write(runs, data, HIERARCHIES[data.dataset], options)
    loop.finish(runs)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
