"""Interpreting chest X-rays via CNNs that exploit disease dependencies and uncertainty labels.

Pham, Le, Tran, Ngo, Nguyen. 2019. Tables 1 and 2, Figures 4 and 5, the radiologists of section 4.6.

    bash reproduce/pham2019.sh                                    on drawn phantoms, minutes
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
from typing import Any, Literal

import numpy as np
import pandas as pd

import losses
from data import label_tree, labels, policies, splits
from data.augment import Augment
from evaluation import hierarchy, probabilities
from models import inference
from reproduce.engine import dataset, flags, loop, schedules
from reproduce.engine.ranges import Backbone, BatchSize, Count, Decay, Members, Pixels, Rate, Share
from reproduce.engine.rows import Combined, Data, Fit, Readout, Row, Task, lowest_loss, mean_auc_of
from reproduce.tables import pham2019 as tables
from reproduce.tables.pham2019 import CLOSED

NAMES, FIVE = labels.CHEXPERT, labels.CHEXPERT_COMPETITION
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
    """How conditional training is read where the text leaves it open."""

    own_parent: bool = True  # §3.2: step 1 asks this of a label; otherwise all parents positive
    masked: bool = True  # §3.2 by its aim: step 2 is conditional too; otherwise on all images
    product: bool = True  # eqs. 3 and 4; otherwise step 2's probabilities as they are
    close: Literal["blanks", "all", "none"] = "blanks"  # ours: parents that a positive child fills
    warm_start: bool = False  # §4.3, "on top of them": step 1 starts from the flat network


@dataclass(frozen=True)
class Images:
    """What a network sees of a study."""

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
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # unstated; ours


DEMO = {  # six small networks instead of the paper's, without ImageNet weights
    "backbone": "tiny",
    "members": "tiny,tiny_deep,tiny_wide,tiny_residual,tiny_residual_deep,tiny_separable",
    "weights": "none", "size": 32, "resize": 37, "batch_size": 64, "epochs": 5,
    "learning_rate": 4e-3, "decay": 0.7, "held_out": 0.1,
}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """The sets, and why their scores cannot be compared with published ones."""
    if config.frontal:
        frame = frame[frame["view"].str.startswith("Frontal")].reset_index(drop=True)
    # Table 1's validation set is a test set here: it chooses nothing
    sets = frame["split"].map({"train": "train", "valid": "test", "test": "public"})
    return splits.carve(frame.assign(split=sets), "train", "val", config.held_out, seed=0), ""


def rows(config: Config, data: Data) -> list[Row | Combined]:
    """Table 1, the effect of template matching, the six networks, their ensemble, and TTA."""
    members, tree = config.members.split(","), label_tree.CHEXPERT
    parents, ancestors = label_tree.parent_matrix(tree), label_tree.ancestor_matrix(tree)
    released = data.frame[list(NAMES)].to_numpy(np.float32)
    truth = policies.apply(released, "ignore")

    def targets_of(policy: str) -> np.ndarray:  # a smoothed label is drawn once for all epochs
        return policies.apply(released, policy, seed=0, ids=data.frame["image_path"])

    def closed_targets_of(policy: str) -> np.ndarray:
        return label_tree.close(targets_of(policy), tree, config.close, np.isnan(released))

    def chain_rule(logits: np.ndarray) -> np.ndarray:  # eqs. 3 and 4
        return hierarchy.path_product(probabilities.sigmoid(logits), ancestors)

    def bce():  # eq. 2, with the minus sign that it lacks
        return losses.masking.MaskedBCE()

    fit = Fit(
        config.epochs,
        schedules.exponential(config.learning_rate, config.decay),
        select=mean_auc_of([NAMES.index(label) for label in FIVE]),
    )
    first_step, second_step = replace(fit, select=lowest_loss), replace(fit, head_only=True)
    flat = Readout()
    chained = Readout(chain_rule) if config.product else flat

    def row(name, targets, fit, readout, *, backbone=config.backbone, note="", **more) -> Row:
        task = Task(NAMES, targets, truth)
        network = {"backbone": backbone, "normalise": config.normalise}
        own = {"settings": {"template": config.template}} | more
        return Row(name, task, bce, fit, readout, network=network, note=note, **own)

    ct_settings = ("members", "draws", "own_parent", "masked", "product", "warm_start")

    def by_bce(name, policy, **more) -> Row:
        return row(name, targets_of(policy), fit, flat, ignores=(*ct_settings, "close"), **more)

    def control_of(name, policy) -> Row:  # flat, with the labels that CT is trained on
        return row(name, closed_targets_of(policy), fit, flat, ignores=ct_settings)

    def by_ct(name, policy, warm_start="", **more) -> list[Row]:
        closed = closed_targets_of(policy)
        conditional = label_tree.conditional(closed, parents)
        step_1, step_2 = name + STEP_1, name
        by_step_1 = label_tree.conditional(closed, parents, config.own_parent)
        ignores = ("members", "draws", "masked", "product")
        warm = {"start_from": warm_start, "ignores": ignores}
        by_step_2 = conditional if config.masked else closed
        head = {"start_from": step_1, "ignores": ("members", "draws")}
        return [
            row(step_1, by_step_1, first_step, flat, **warm, **more),
            row(step_2, by_step_2, second_step, chained, **head, **more),
        ]

    table = []
    for name, (policy, ct) in TABLE_1.items():
        if ct:
            table.append(control_of(name.replace("+CT", "") + CLOSED, policy))
            table += by_ct(name, policy, name.replace("+CT", "") if config.warm_start else "")
        else:
            table.append(by_bce(name, policy))
    if config.template:
        centre = {"data": data.centre, "settings": {"template": False}}
        table.append(by_bce(CENTRE_CROP, "ones", **centre))
    for name, printed in zip(members, MEMBERS.split(","), strict=False):
        if name != config.backbone:
            note = "" if name == printed else f"{name} stands in the place of {printed}"
            table += by_ct(name, TABLE_1[BEST][0], backbone=name, note=note)
    averaged = [BEST if name == config.backbone else name for name in members]
    augment = Augment(flip=True, degrees=7, scale=0.02, shear=5 / config.size)  # §4.4
    read_again = replace(fit, epochs=0)
    many_views = replace(chained, passes=inference.augmented_passes(augment, config.draws))
    tta: dict[str, Any] = {"fit": read_again, "readout": many_views, "ignores": ("members",)}
    singles = [each for each in table if each.name in {BEST, *averaged}]
    return [
        *table,
        Combined(ENSEMBLE, averaged),
        *(replace(each, name=each.name + TTA, start_from=each.name, **tta) for each in singles),
        Combined(ENSEMBLE + TTA, [name + TTA for name in averaged]),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chexpert"])
    images = {"resize": config.resize, "template": config.template}
    data = dataset.load(options, config, split, rows, phantoms=6000, **images)
    runs = loop.train("pham2019", rows, data, config, options)
    finals = [each for each in runs if not each.row.name.endswith(STEP_1)]
    tables.write(finals, data, options, best_first=(ENSEMBLE + TTA, ENSEMBLE, BEST))
    loop.finish(runs)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
