"""Deep learning based multi-label chest X-ray classification with entropy weighting loss.

Mo, Cai. 2019. Table I, Figure 1.

    bash reproduce/mo2019.sh                               on drawn phantoms, minutes on a laptop
    bash reproduce/mo2019.sh --data-dir ChestX-ray14       the paper's, about 35 GPU hours *
    * estimated: 400 epochs of 75,700 images at 300 DenseNet-121 images a second, and validation.

Eq. (2), -Σ l p log p with p = softmax(y), has its minimum 0 where a positive class has p = 1 and
also where it has p = 0, and from below p = 1/e gradient descent goes to 0: as printed it trains the
opposite of the labels. So it is run in every reading that the text allows. The published row is
compared with the printed one alone; claims-ours.md judges the claims with our repair instead.

Deviations, each explained in docs/papers/mo2019.md:
1. The factors of the weighted cross-entropy are not printed: N_neg/N and N_pos/N of each class.
2. Every network has 15 outputs (14 diseases, No Finding), so that rows differ in the loss alone.
3. "Officially split 7:1:2" is two things: the official test list, with 1/8 of the rest to
   validate, or the public 7:1:2 split of CheXNet (--split chexnet); the table names which it was.
4. The best epoch by validation AUC is kept; the paper does not say which epoch it reports.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

import losses
from data import labels, splits
from data.augment import Augment
from evaluation import probabilities
from reproduce.engine import dataset, flags, loop, schedules
from reproduce.engine.ranges import Backbone, BatchSize, Count, Pixels, Precision, Rate, Weight
from reproduce.engine.rows import Data, Fit, Readout, Row, Task
from reproduce.tables import mo2019 as tables

BASELINE, PROPOSED = "DenseNet121 weighted CE", "DenseNet121 proposed loss"
OURS = "DenseNet121 proposed (ours)"


@dataclass(frozen=True)
class Readings:
    """What the paper leaves open of its losses, its schedule and its split."""

    split: Literal["official", "chexnet"] = "official"  # §IV-A has either; deviation 3
    schedule: Literal["constant", "plateau"] = "constant"  # unstated; §IV-B, "initialed as 0.001"
    classes: Literal[15, 14] = 15  # eq. 2's nclass is unstated; 15 with No Finding, 14 without
    factors: Literal["both", "positive"] = "both"  # §III-B has both; or that of positives alone
    entropy_weight: Weight = 1.0  # ours: of eq. 2 beside eq. 1, reading D


@dataclass(frozen=True)
class Config(Readings):
    vgg: Backbone = "vgg16"  # §IV-D
    resnet: Backbone = "resnet50"  # §IV-D
    densenet: Backbone = "densenet121"  # §IV-B
    weights: str = "imagenet"  # §IV-D, "pre-trained"
    size: Pixels = 224  # §IV-B
    batch_size: BatchSize = 32  # §IV-B
    epochs: Count = 50  # §IV-B
    learning_rate: Rate = 1e-3  # §IV-B, Adam
    precision: Precision = "float32"  # unstated; ours


# Three small networks instead of VGG16, ResNet50 and DenseNet121.
DEMO = {"vgg": "tiny_plain", "resnet": "tiny_residual", "densenet": "tiny",
        "weights": "none", "size": 32, "batch_size": 64, "epochs": 8,
        "learning_rate": 2e-3}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """The sets, and why their scores cannot be compared with published ones."""
    if config.split == "chexnet":  # §IV-A: 7:1:2 by patient
        return splits.chexnet(frame), ""
    return splits.held_out(frame, 1 / 8, seed=0, train="train_val"), ""


def rows(config: Config, data: Data) -> list[Row]:
    """Table I's three baselines, and eq. (2) in five readings."""
    classes = [*labels.CHESTXRAY14, labels.NO_FINDING]
    targets = data.frame[classes].to_numpy(np.float32)[:, : config.classes]
    task = Task(labels.CHESTXRAY14, targets, truth=targets[:, :14])
    rate = schedules.constant(config.learning_rate)
    if config.schedule == "plateau":
        rate = schedules.plateau(config.learning_rate, 0.1, 1e-4, 1e-7)  # as CheXNet; ours
    fit = Fit(config.epochs, rate, augment=Augment(flip=True))
    one_by_one = Readout(lambda logits: probabilities.sigmoid(logits)[..., :14])
    exclusive = Readout(lambda logits: probabilities.softmax(logits)[..., :14])

    def factors():
        of_training = targets[data.frame["split"] == "train"]
        return losses.weighted_bce.factors(of_training, config.factors)

    def weighted_ce():  # eq. 1
        return losses.weighted_bce.WeightedBCE(*factors())

    def entropy_weighting(reading, scale=1.0, with_eq_1=False):  # eq. 2
        def loss():
            eq_1 = factors() if with_eq_1 else None
            return losses.entropy_weighting.EntropyWeighting(reading, scale, eq_1)

        return loss

    def row(name, loss, readout=exclusive, backbone=config.densenet, **more) -> Row:
        ignores = ("vgg", "resnet", "densenet", "entropy_weight")
        network = {"backbone": backbone}
        return Row(name, task, loss, fit, readout, network=network, ignores=ignores, **more)

    printed, repaired = map(entropy_weighting, ("as_printed", "detached"))
    return [
        row("VGGNet-16 weighted CE", weighted_ce, one_by_one, config.vgg),
        row("ResNet-50 weighted CE", weighted_ce, one_by_one, config.resnet),
        row(BASELINE, weighted_ce, one_by_one),
        row(PROPOSED, printed, note="ours is reading A: eq. (2) as printed, from the start"),
        row(
            "DenseNet121 proposed loss after CE",
            printed,
            start_from=BASELINE,
            note="reading B: eq. (2) as printed, fine-tuning the trained weighted CE",
        ),
        row(OURS, repaired, note="reading C: our repair of eq. (2), its weight p held constant"),
        row(
            "DenseNet121 proposed loss + CE",
            entropy_weighting("as_printed", config.entropy_weight, with_eq_1=True),
            one_by_one,
            settings={"entropy_weight": config.entropy_weight},
            note="reading D, a guess: eq. (1) plus eq. (2) as printed",
        ),
        row(
            "DenseNet121 CE weighted by entropy",
            entropy_weighting("confusion", with_eq_1=True),
            one_by_one,
            note="reading E, a guess: eq. (1) with -p log p as the weight of each class",
        ),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chestxray14"])
    data = dataset.load(options, config, split, rows, phantoms=8000, resize=config.size)
    runs = loop.train("mo2019", rows, data, config, options)
    tables.write(runs, data, options, PROPOSED, OURS, config.split)
    loop.finish(runs)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
