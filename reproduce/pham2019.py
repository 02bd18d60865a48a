"""Interpreting chest X-rays via CNNs that exploit disease dependencies and uncertainty labels.

Pham, Le, Tran, Ngo, Nguyen. 2019. Tables 1 and 2, Figures 4 and 5, the radiologists of section 4.6.

    bash reproduce/pham2019.sh                                    on phantoms, minutes
    bash reproduce/pham2019.sh --data-dir CheXpert-v1.0-small     the paper's, about 2 GPU days *
    * estimated: 155 epochs of 181,000 images at 300 DenseNet-121 images a second.

Conditional training (CT) trains a label on the images with a positive parent: step 1 all layers,
step 2 the last one alone; the chain rule makes the probabilities unconditional. Label smoothing
(LSR) turns an uncertain label into a random target. The ensemble averages six networks, with
test-time augmentation (TTA) over ten random views, on lungs cut out by template matching.

Deviations, each explained in docs/papers/pham2019.md:
1. Step 2 of CT masks the loss as step 1 does, or the product would mean nothing (--no-masked).
2. Under CT a positive child makes its blank ancestors positive (--close). The "(closed labels)"
   rows train flat networks on the same labels, to tell CT's gain from that of the labels.
3. The best epoch is chosen on patients held out of the training set, never on the 200 studies.
4. The public test set of 500 studies, hidden in 2019, is scored where the folder has it.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from data import label_tree, labels, policies, splits
from data.augment import Augment
from evaluation import hierarchy
from evaluation.probabilities import sigmoid
from models import inference
from reproduce.engine import dataset, runs, schedules, search
from reproduce.engine.options import (
    Backbone,
    BatchSize,
    Count,
    Decay,
    Members,
    Pixels,
    Precision,
    Rate,
    Share,
    one_sentence,
    parse,
)
from reproduce.engine.rows import (
    Combined,
    Fit,
    Network,
    Readout,
    Row,
    Targets,
    Task,
    bce,
    lowest_loss,
    mean_auc,
    plain,
)
from reproduce.engine.train import train_table
from reproduce.tables import pham2019 as tables
from reproduce.tables.pham2019 import CLOSED

NAMES, FIVE, TREE = labels.CHEXPERT, labels.CHEXPERT_COMPETITION, label_tree.CHEXPERT
TABLE_1 = {  # the printed row: its policy for uncertain labels, and whether it is trained by CT
    "Ignore": ("ignore", False), "Ignore+CT": ("ignore", True),
    "U-Zeros": ("zeros", False), "U-Zeros+CT": ("zeros", True),
    "U-Zeros+LSR": ("zeros-lsr", False), "U-Zeros+CT+LSR": ("zeros-lsr", True),
    "U-Ones": ("ones", False), "U-Ones+CT": ("ones", True),
    "U-Ones+LSR": ("ones-lsr", False), "U-Ones+CT+LSR": ("ones-lsr", True),
}  # fmt: skip
MEMBERS = "densenet121,densenet169,densenet201,inceptionresnetv2,xception,nasnetlarge"
BEST, CENTRE_CROP = "U-Ones+CT+LSR", "U-Ones (centre crop)"
STEP_1, TTA, ENSEMBLE = " (step 1)", " (TTA)", "ensemble"


@dataclass(frozen=True)
class Readings:
    """Readings of conditional training where the text leaves it open."""

    own_parent: bool = True  # §3.2: step 1 asks this of a label; otherwise all parents positive
    masked: bool = True  # §3.2 by its aim: step 2 is conditional too; otherwise on all images
    product: bool = True  # eqs. 3 and 4; otherwise step 2's probabilities as they are
    close: Literal["blanks", "all", "none"] = "blanks"  # ours: parents that a positive child fills
    warm_start: bool = False  # §4.3, "on top of them": step 1 starts from the flat network


@dataclass(frozen=True)
class Images:
    """The images that a network sees."""

    size: Pixels = 224  # §4.2, for all networks
    resize: Pixels = 256  # §4.2
    template: bool = True  # §4.2; otherwise the centre is cut out
    frontal: bool = True  # §1; otherwise lateral views are studied too
    normalise: Literal["imagenet", "network"] = "imagenet"  # §4.2; or as each network's weights ask


@dataclass(frozen=True)
class Config(Readings, Images):
    backbone: Backbone = "densenet121"  # §4.3
    members: Members = MEMBERS  # §4.4
    weights: str = "imagenet"  # §4.3
    batch_size: BatchSize = 32  # §4.3
    epochs: Count = 5  # §4.3; in each step of CT
    learning_rate: Rate = 1e-4  # §4.3, Adam; in each step of CT
    decay: Decay = 0.1  # §4.3: of the learning rate after each epoch
    draws: Count = 10  # §4.4, test-time augmentation
    held_out: Share = 0.05  # unstated; ours: of the training patients, to choose the epoch
    precision: Precision = "float32"  # unstated; ours


DEMO = {  # six small networks instead of the paper's, without ImageNet weights
    "backbone": "tiny",
    "members": "tiny,tiny_deep,tiny_wide,tiny_residual,tiny_residual_deep,tiny_separable",
    "weights": "none", "size": 32, "resize": 37, "batch_size": 64, "epochs": 5,
    "learning_rate": 4e-3, "decay": 0.7, "held_out": 0.1,
}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """Return the frame with its sets, and why results cannot be compared with published ones."""
    if config.frontal:
        frame = frame[frame["view"].str.startswith("Frontal")].reset_index(drop=True)
    # Table 1's validation set is a test set here: it chooses nothing
    sets = frame["split"].map({"train": "train", "valid": "test", "test": "public"})
    return splits.carve(frame.assign(split=sets), "train", "val", config.held_out, seed=0), ""


def targets(
    frame: pd.DataFrame,
    policy: str,
    close: str | None = None,
    conditional: bool = False,
    own_parent: bool = True,
) -> Targets:
    """Return the released labels under a policy; `close` fills the parents of positive labels.

    Conditional targets are unknown on images without a positive parent. A smoothed label is drawn
    once for all epochs.
    """
    released = frame[list(NAMES)].to_numpy(np.float32)
    learnt = policies.apply(released, policy, seed=0, ids=frame["image_path"])
    if close is not None:
        learnt = label_tree.close(learnt, TREE, close, np.isnan(released))
    if conditional:
        learnt = label_tree.conditional(learnt, label_tree.parent_matrix(TREE), own_parent)
    return Targets(learnt, truth=policies.apply(released, "ignore"))


def chain_rule(logits: np.ndarray) -> np.ndarray:  # eqs. 3 and 4
    """Return unconditional probabilities: the product along each label's path."""
    return hierarchy.path_product(sigmoid(logits), label_tree.ancestor_matrix(TREE))


def rows(config: Config, dataset: str) -> list[Row | Combined]:
    """Return Table 1, the effect of template matching, the six networks, their ensemble, and TTA.

    All losses are eq. 2, with the minus sign that it lacks.
    """
    members = config.members.split(",")
    fit = Fit(
        config.epochs,
        schedules.Exponential(config.learning_rate, config.decay),
        config.batch_size,
        select=partial(mean_auc, columns=tuple(NAMES.index(label) for label in FIVE)),
    )
    chained = Readout(chain_rule) if config.product else Readout()
    build = partial(plain, normalise=config.normalise)

    def network(backbone: str) -> Network:
        return Network(backbone, config.size, config.weights, config.precision, build)

    def flat(name: str, policy: str, close: str | None = None, centre: bool = False) -> Row:
        task = Task(NAMES, partial(targets, policy=policy, close=close))
        return Row(name, task, bce, fit, network(config.backbone), centre=centre)

    def by_ct(
        name: str, policy: str, backbone: str = config.backbone, start_from: str = "", note=""
    ) -> list[Row]:
        closed = partial(targets, policy=policy, close=config.close)
        step_1 = Row(
            name + STEP_1,
            Task(NAMES, partial(closed, conditional=True, own_parent=config.own_parent)),
            bce,
            replace(fit, select=lowest_loss),
            network(backbone),
            start_from=start_from,
            note=note,
        )
        learnt = partial(closed, conditional=True) if config.masked else closed
        step_2 = replace(
            step_1,
            name=name,
            task=Task(NAMES, learnt),
            fit=replace(fit, head_only=True),
            readout=chained,
            start_from=step_1.name,
        )
        return [step_1, step_2]

    table = []
    for name, (policy, ct) in TABLE_1.items():
        if ct:  # with a control: flat, with the labels that CT is trained on
            without = name.replace("+CT", "")
            table.append(flat(without + CLOSED, policy, config.close))
            table += by_ct(name, policy, start_from=without if config.warm_start else "")
        else:
            table.append(flat(name, policy))
    if config.template:
        table.append(flat(CENTRE_CROP, "ones", centre=True))
    for name, printed in zip(members, MEMBERS.split(","), strict=False):
        if name != config.backbone:
            note = "" if name == printed else f"{name} takes the place of {printed}"
            table += by_ct(name, TABLE_1[BEST][0], backbone=name, note=note)
    averaged = [BEST if name == config.backbone else name for name in members]
    augment = Augment(flip=True, degrees=7, scale=0.02, shear=5 / config.size)  # §4.4
    views = replace(chained, passes=inference.AugmentedPasses(augment, config.draws))
    with_tta = [
        replace(
            row,
            name=row.name + TTA,
            start_from=row.name,
            fit=row.fit.without_training(),
            readout=views,
        )
        for row in table
        if row.name in {BEST, *averaged}
    ]
    return [
        *table,
        Combined(ENSEMBLE, averaged),
        *with_tta,
        Combined(ENSEMBLE + TTA, [name + TTA for name in averaged]),
    ]


def main() -> None:
    config, options = parse(Config, DEMO, __doc__, ["chexpert"])
    table = search.table(rows, config, options)
    images = {"resize": config.resize, "template": config.template}
    data = dataset.load(options, config, split, table, phantoms=6000, **images)
    trained = train_table("pham2019", table, config, data, options)
    finals = [run for run in trained if not run.row.name.endswith(STEP_1)]
    tables.write(finals, data, options, best_first=(ENSEMBLE + TTA, ENSEMBLE, BEST))
    runs.finish(trained)


if __name__ == "__main__":
    with one_sentence():
        main()
