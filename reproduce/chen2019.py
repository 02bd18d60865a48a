"""Deep hierarchical multi-label classification of chest X-ray images.

Chen, Miao, Xu, Hager, Harrison. MIDL 2019. Tables 1 and 2, Figure 3.

    bash reproduce/chen2019.sh                          on drawn phantoms, minutes on a laptop
    bash reproduce/chen2019.sh --data-dir PLCO          the paper's, about two GPU days
    bash reproduce/chen2019.sh --dataset chexpert --data-dir CheXpert-v1.0-small

Every label's logit is that of its probability given its parent; the chain rule makes them
unconditional. Stage 1 (HLCP) trains a label where its parent is positive, stage 2 (HLUP-finetune)
trains the product along its path on all images, with a loss that no logit makes unstable.

Deviations, each explained in docs/papers/chen2019.md:
1. The paper states no training settings: one recipe for all rows, marked "unstated" below.
2. HLUP is computed in time linear in the path, equal to the paper's power set (--hlup powerset).
3. "Same budget" rows train BR-all and HLCP as long as HLUP-finetune, which the paper does not.
4. On ChestX-ray14 and CheXpert the hierarchies are ours, and nothing compares with the paper.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

import losses
from data import hierarchies, label_tree, plco, splits
from data.augment import Augment
from evaluation import hierarchy, predict
from reproduce import chen2019_results, flags, run


@dataclass(frozen=True)
class Config:
    backbone: str = "densenet121"  # §2.1
    weights: str = "imagenet"  # §3
    size: int = 224  # unstated; ours
    resize: int = 256  # unstated; ours: training crops `size` out of it at random
    batch_size: int = 32  # unstated; ours
    epochs: int = 10  # unstated; ours, for every first stage
    learning_rate: float = 1e-4  # unstated; ours, Adam
    finetune_epochs: int = 5  # unstated; ours, all layers
    finetune_learning_rate: float = 1e-5  # unstated; ours
    precision: str = "float32"  # unstated; ours
    hlup: Literal["exact", "powerset"] = "exact"  # eqs. 5-7; "powerset" is their printed form
    deleted: str = "0.0"  # §4: the share of deleted labels in the released PLCO lists
    uncertain: Literal["ones", "zeros", "ignore"] = "ones"  # ours, for CheXpert alone


DEMO = {
    "backbone": "tiny",
    "weights": "none",
    "size": 64,
    "resize": 72,
    "epochs": 5,
    "learning_rate": 2e-3,
    "finetune_epochs": 3,
    "finetune_learning_rate": 5e-4,
}


def rows(config: Config, options, frame: pd.DataFrame) -> list[run.Row | run.Combined]:
    """Tables 1 and 2, and the controls of deviation 3."""
    names, tree = hierarchies.OF[options.dataset]
    parents, ancestors = label_tree.parent_matrix(tree), label_tree.ancestor_matrix(tree)
    leaves = label_tree.leaves(tree)
    targets = truth = hierarchies.truth(frame, options.dataset, config.uncertain)
    if options.dataset == "plco":  # deleted labels are unknown in training, as in Chen's extension
        preserved = frame[list(plco.PRESERVE)].to_numpy() == 1
        targets = label_tree.close(np.where(preserved, truth, np.nan), tree)

    def chain_rule(logits: np.ndarray, floor: float = 0.0) -> np.ndarray:  # eqs. 1 and 3
        return hierarchy.path_product(floor + (1 - floor) * predict.sigmoid(logits), ancestors)

    def rescaled(logits: np.ndarray) -> np.ndarray:  # §3: multiplicands in [0.02, 1]
        return chain_rule(logits, floor=0.02)

    def bce():  # BR: binary relevance
        return losses.masking.MaskedBCE()

    def hlcp():  # eq. 2
        return losses.hierarchical.HLCP(parents)

    def hlup(form: str = config.hlup):  # eqs. 4-7
        return lambda: losses.hierarchical.HLUP(ancestors, form)

    def row(name, loss, probabilities=chain_rule, start_from="", of=slice(None)):
        def mean_leaf_auc(truth, probabilities, loss):  # §3: what the searches optimised
            leaf = np.isin(np.arange(len(names))[of], leaves)
            return run.mean_auc(truth[:, leaf], probabilities[:, leaf], loss)

        stage = "finetune_" if start_from else ""
        rate = getattr(config, f"{stage}learning_rate")
        return run.Row(
            name,
            np.array(names)[of].tolist(),
            targets[:, of],
            truth[:, of],
            loss,
            epochs=getattr(config, f"{stage}epochs"),
            learning_rate=lambda epoch, history: rate,
            select=mean_leaf_auc,
            augment=Augment(random_crop=True),
            probabilities=probabilities,
            start_from=start_from,
            unused=() if start_from else ("finetune_epochs", "finetune_learning_rate"),
        )

    return [
        row("BR-leaf", bce, predict.sigmoid, of=leaves),
        row("BR-all", bce, predict.sigmoid),
        row("HLUP", hlup()),
        row("HLCP", hlcp),
        row("HLUP-finetune", hlup(), start_from="HLCP"),
        row("HLUP (naive)", hlup("naive")),
        row("HLUP (rescale)", hlup("rescale"), rescaled),
        row("HLUP-finetune (naive)", hlup("naive"), start_from="HLCP"),
        row("HLUP-finetune (rescale)", hlup("rescale"), rescaled, start_from="HLCP"),
        row("BR-all, same budget", bce, predict.sigmoid, start_from="BR-all"),
        row("HLCP, same budget", hlcp, start_from="HLCP"),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=list(hierarchies.OF))
    which = {"deleted": config.deleted} if options.dataset == "plco" else {}
    frame = run.read(options, config, phantoms=2400, **which)
    attrs = frame.attrs
    if options.dataset == "plco":
        frame = splits.as_released(frame)  # §3: 70/10/20 by patient, as the authors drew it
    elif options.dataset == "chestxray14":
        frame = splits.held_out(frame, 1 / 8, seed=0, train="train_val")
    else:
        frame = frame[frame["view"].str.startswith("Frontal")]
        frame = splits.held_out(frame, 0.1, seed=0, test="valid")
    data = run.decode(options, frame, attrs, config.resize)
    runs = run.train("chen2019", rows(config, options, data.frame), data, config, options)
    chen2019_results.report(runs, data, options)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
