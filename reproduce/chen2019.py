"""Deep hierarchical multi-label classification of chest X-ray images.

Chen, Miao, Xu, Hager, Harrison. MIDL 2019. Tables 1 and 2, Figure 3.

    bash reproduce/chen2019.sh                          on phantoms, minutes on a laptop
    bash reproduce/chen2019.sh --data-dir PLCO          the paper's, about 7 GPU hours *
    bash reproduce/chen2019.sh --data-dir PLCO --search learning_rate=3e-5,1e-4,3e-4
    bash reproduce/chen2019.sh --dataset chexpert --data-dir CheXpert-v1.0-small
    * estimated: 105 epochs of 62,000 images at 300 DenseNet-121 images a second, and validation.

Each logit gives a label's probability if its parent is present; the chain rule makes it
unconditional. Stage 1 (HLCP) trains a label on the images with a positive parent. Stage 2
(HLUP-finetune) trains the product of probabilities along the path on all images, with a loss that
is stable in float32.

Deviations, each explained in docs/papers/chen2019.md:
1. The paper states no training settings: one recipe for all rows, marked "unstated" below.
2. HLUP is computed in time linear in the path, equal to the paper's power set (--hlup powerset);
   Appendix A's approximation, which the paper does not use, is --hlup maximum.
3. "Same budget" rows train one-stage rows as long as two-stage ones (claims-equal-budget.md).
4. "Rescale" rows are read by the rescaled product, as trained, and again by the raw product.
5. On ChestX-ray14 and CheXpert the hierarchies are ours, and no result is comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

import losses
from data import label_tree, plco, policies, splits
from data.augment import Augment
from data.datasets import CHESTXRAY14_FORMS, DATASETS
from data.label_tree import Tree
from evaluation.hierarchy import path_product
from evaluation.probabilities import sigmoid
from reproduce.engine import dataset, runs, schedules, search
from reproduce.engine.options import (
    Backbone,
    BatchSize,
    Count,
    Levels,
    Pixels,
    Precision,
    Rate,
    one_sentence,
    parse,
)
from reproduce.engine.rows import Fit, Network, Readout, Row, Targets, Task, bce, mean_auc
from reproduce.engine.train import train_table
from reproduce.tables import chen2019 as tables
from reproduce.tables.chen2019 import TWIN

ON = ("plco", "chexpert", *CHESTXRAY14_FORMS)
RAW = ", raw product"  # ends the names of rescaled rows that are read without rescaling
ONLY_FOR = {"deleted": ("plco",), "uncertain": ("chexpert",)}  # settings of one dataset


@dataclass(frozen=True)
class Readings:
    """The form of HLUP, and the labels."""

    hlup: Literal["exact", "powerset", "maximum"] = "exact"  # eqs. 5-7; as printed; eqs. 23-24
    deleted: str = "0.0"  # §4: the share of deleted labels in the released PLCO lists
    uncertain: Literal["ones", "zeros", "ignore"] = "ones"  # ours, only for CheXpert
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
    """Return the frame with its sets, and why results cannot be compared with published ones."""
    if frame.attrs["dataset"] == "plco":  # §3: 70/10/20 by patient, as the authors drew it later
        test = (frame["split"] == "test").sum()
        return splits.as_released(frame), f"another split of PLCO: {test:,} test images, not 39,600"
    if frame.attrs["dataset"] in CHESTXRAY14_FORMS:
        return splits.official(frame, 1 / 8, seed=0), f"{frame.attrs['dataset']}, not PLCO"
    frontal = frame[frame["view"].str.startswith("Frontal")]
    return splits.held_out(frontal, 0.1, seed=0, test="valid"), "chexpert, not PLCO"


def targets(
    frame: pd.DataFrame,
    hierarchy: str,
    uncertain: str = "ones",
    columns: Sequence[int] | None = None,
) -> Targets:
    """Return the labels closed under a hierarchy, or some columns of them."""
    truth = policies.hierarchy_targets(frame, hierarchy, uncertain)
    learnt = truth
    if hierarchy == "plco":  # deleted labels are unknown in training, as in Chen's extension
        preserved = frame[list(plco.PRESERVE)].to_numpy() == 1
        whole = label_tree.HIERARCHIES[hierarchy][1]
        learnt = label_tree.close(np.where(preserved, truth, np.nan), whole)
    chosen = slice(None) if columns is None else list(columns)
    return Targets(learnt[:, chosen], truth[:, chosen])


def hlcp(train: np.ndarray, tree: Tree):  # eq. 2
    """Return the conditional loss: each label on the images with a positive parent."""
    return losses.hierarchical.HLCP(label_tree.parent_matrix(tree))


def hlup(train: np.ndarray, tree: Tree, form: str):  # eqs. 4-7, and §3's naive and rescaled forms
    """Return the unconditional loss of the product of probabilities along each path."""
    return losses.hierarchical.HLUP(label_tree.ancestor_matrix(tree), form)


def chain_rule(logits: np.ndarray, tree: Tree, floor: float = 0.0) -> np.ndarray:  # eqs. 1 and 3
    """Return unconditional probabilities; factors are rescaled to [floor, 1]."""
    factors = floor + (1 - floor) * sigmoid(logits)
    return path_product(factors, label_tree.ancestor_matrix(tree))


def rows(config: Config, dataset: str) -> list[Row]:
    """Return Tables 1 and 2, the controls of deviation 3 and the readings of deviation 4."""
    hierarchy = DATASETS[dataset].hierarchy
    names, whole = label_tree.HIERARCHIES[hierarchy]
    tree = label_tree.cut(whole, config.levels)
    leaf = tuple(label_tree.leaves(whole).tolist())
    closed = partial(targets, hierarchy=hierarchy)
    if dataset == "chexpert":
        closed = partial(closed, uncertain=config.uncertain)
    every = Task(names, closed)
    leaves = Task(tuple(names[label] for label in leaf), partial(closed, columns=leaf))

    conditional = partial(hlcp, tree=tree)
    exact = partial(hlup, tree=tree, form=config.hlup)
    naive = partial(hlup, tree=tree, form="naive")
    rescale = partial(hlup, tree=tree, form="rescale")

    flat, chain = Readout(), Readout(partial(chain_rule, tree=tree))
    rescaled = Readout(partial(chain_rule, tree=tree, floor=0.02))  # §3: factors in [0.02, 1]
    first = Fit(
        config.epochs,
        schedules.Constant(config.learning_rate),
        config.batch_size,
        select=partial(mean_auc, columns=leaf),  # §3: what the searches optimised
        augment=Augment(random_crop=True),
    )
    lower = schedules.Constant(config.finetune_learning_rate)
    finetune = replace(first, epochs=config.finetune_epochs, learning_rate=lower)
    network = Network(config.backbone, config.size, config.weights, config.precision)

    table = [
        Row("BR-leaf", leaves, bce, replace(first, select=mean_auc), network, flat),
        Row("BR-all", every, bce, first, network, flat),  # BR: binary relevance
        Row("HLUP", every, exact, first, network, chain),
        Row("HLCP", every, conditional, first, network, chain),
        Row("HLUP-finetune", every, exact, finetune, network, chain, "HLCP"),
        Row("HLUP (naive)", every, naive, first, network, chain),
        Row("HLUP (rescale)", every, rescale, first, network, rescaled),
        Row("HLUP-finetune (naive)", every, naive, finetune, network, chain, "HLCP"),
        Row("HLUP-finetune (rescale)", every, rescale, finetune, network, rescaled, "HLCP"),
    ]
    raw = [row for row in table if row.readout is rescaled]
    one_stage = [row for row in table if not row.start_from]
    for row in one_stage:
        longer = replace(finetune, select=row.fit.select)
        table.append(replace(row, name=row.name + TWIN, fit=longer, start_from=row.name))
    for row in raw:
        again = replace(row, name=row.name + RAW, readout=chain, start_from=row.name)
        note = "the trained network, read by the product of its probabilities without rescaling"
        table.append(replace(again, fit=first.without_training(), note=note))
    return table


def main() -> None:
    config, options = parse(Config, DEMO, __doc__, ON, ONLY_FOR)
    table = search.table(rows, config, options)
    lists = {"deleted": config.deleted} if options.dataset == "plco" else {}
    data = dataset.load(options, config, split, table, phantoms=8000, resize=config.resize, **lists)
    trained = train_table("chen2019", table, config, data, options)
    tables.write(trained, data, DATASETS[data.dataset].hierarchy, config.uncertain, options)
    runs.finish(trained)


if __name__ == "__main__":
    with one_sentence():
        main()
