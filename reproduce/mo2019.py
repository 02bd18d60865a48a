"""Deep learning based multi-label chest X-ray classification with entropy weighting loss.

Mo, Cai. 2019. Table I, Figure 1.

    bash reproduce/mo2019.sh                               on phantoms, minutes on a laptop
    bash reproduce/mo2019.sh --data-dir ChestX-ray14       the paper's, about 40 GPU hours *
    * estimated: 450 epochs of 75,700 images at 300 DenseNet-121 images a second, and validation.

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
5. "The same mean, standard deviation" is ImageNet's for all networks (--normalise).
6. Plain cross-entropy, which the paper does not run, shows what the factors of eq. (1) do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

import losses
from data import labels, splits
from data.augment import Augment
from data.datasets import CHESTXRAY14_FORMS
from evaluation.probabilities import sigmoid, softmax
from models.backbones import pixels_of
from reproduce.engine import dataset, runs, schedules, search
from reproduce.engine.options import (
    Backbone,
    BatchSize,
    Count,
    Pixels,
    Precision,
    Rate,
    Weight,
    one_sentence,
    parse,
)
from reproduce.engine.rows import Fit, Network, Readout, Row, Targets, Task, bce, plain
from reproduce.engine.train import train_table
from reproduce.tables import mo2019 as tables

ON = CHESTXRAY14_FORMS
BASELINE, PROPOSED = "DenseNet121 weighted CE", "DenseNet121 proposed loss"
OURS, PLAIN = "DenseNet121 proposed (ours)", "DenseNet121 CE"


@dataclass(frozen=True)
class Readings:
    """Readings of what the paper leaves open: losses, schedule and split."""

    split: Literal["official", "chexnet"] = "official"  # §IV-A has either; deviation 3
    schedule: Literal["constant", "plateau"] = "constant"  # unstated; §IV-B, "initialed as 0.001"
    classes: Literal[15, 14] = 15  # eq. 2's nclass is unstated; 15 with No Finding, 14 without
    factors: Literal["both", "positive"] = "both"  # §III-B has both; or that of positives alone
    entropy_weight: Weight = 1.0  # ours: of eq. 2 beside eq. 1, reading D
    normalise: Literal["imagenet", "network"] = "imagenet"  # §IV-B; or as its weights ask


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
        "learning_rate": 2e-3, "normalise": "network"}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """Return the frame with its sets, and why results cannot be compared with published ones."""
    if config.split == "chexnet":  # §IV-A: 7:1:2 by patient
        return splits.chexnet(frame), ""
    return splits.official(frame, 1 / 8, seed=0), ""


def targets(frame: pd.DataFrame, classes: int) -> Targets:
    """Return the 14 diseases, followed by No Finding if there are 15 classes to learn."""
    names = [*labels.CHESTXRAY14, labels.NO_FINDING]
    learnt = frame[names].to_numpy(np.float32)[:, :classes]
    return Targets(learnt, truth=learnt[:, :14])


def weighted_ce(train: np.ndarray, factors: str):  # eq. 1
    """Return cross-entropy with factors from the training labels."""
    return losses.weighted_bce.WeightedBCE(*losses.weighted_bce.factors(train, factors))


def entropy_weighting(
    train: np.ndarray, reading: str, scale: float = 1.0, eq_1: str | None = None
):  # eq. 2
    """Return a reading of the entropy weighting loss, with eq. (1) if its factors are named."""
    factors = losses.weighted_bce.factors(train, eq_1) if eq_1 else None
    return losses.entropy_weighting.EntropyWeighting(reading, scale, factors)


def normalised(backbone: str, normalise: str) -> Callable[..., Any]:
    """Return how a network is built; its own normalisation (DenseNet's is ImageNet's) is plain."""
    if pixels_of(backbone) == pixels_of(backbone, normalise):
        return plain
    return partial(plain, normalise=normalise)


def one_by_one(logits: np.ndarray) -> np.ndarray:
    """Return a probability for each disease on its own."""
    return sigmoid(logits)[..., :14]


def exclusive(logits: np.ndarray) -> np.ndarray:
    """Return probabilities of classes that exclude each other."""
    return softmax(logits)[..., :14]


def rows(config: Config, dataset: str) -> list[Row]:
    """Return Table I's three baselines, eq. (2) in five readings, and plain cross-entropy."""
    task = Task(labels.CHESTXRAY14, partial(targets, classes=config.classes), config.classes)
    rate: schedules.Constant | schedules.Plateau = schedules.Constant(config.learning_rate)
    if config.schedule == "plateau":
        rate = schedules.Plateau(config.learning_rate, 0.1, 1e-4, 1e-7)  # as CheXNet; ours
    fit = Fit(config.epochs, rate, config.batch_size, augment=Augment(flip=True))
    eq_1 = partial(weighted_ce, factors=config.factors)
    printed = partial(entropy_weighting, reading="as_printed")
    sigmoids, softmaxes = Readout(one_by_one), Readout(exclusive)

    def row(name, loss, readout=softmaxes, backbone=config.densenet, **more) -> Row:
        build = normalised(backbone, config.normalise)
        network = Network(backbone, config.size, config.weights, config.precision, build)
        return Row(name, task, loss, fit, network, readout, **more)

    return [
        row("VGGNet-16 weighted CE", eq_1, sigmoids, config.vgg),
        row("ResNet-50 weighted CE", eq_1, sigmoids, config.resnet),
        row(BASELINE, eq_1, sigmoids),
        row(PROPOSED, printed, note="ours is reading A: eq. (2) as printed, from the start"),
        row(
            "DenseNet121 proposed loss after CE",
            printed,
            start_from=BASELINE,
            note="reading B: eq. (2) as printed, fine-tuning the trained weighted CE",
        ),
        row(
            OURS,
            partial(entropy_weighting, reading="detached"),
            note="reading C: our repair of eq. (2), its weight p held constant",
        ),
        row(
            "DenseNet121 proposed loss + CE",
            partial(printed, scale=config.entropy_weight, eq_1=config.factors),
            sigmoids,
            note="reading D, a guess: eq. (1) plus eq. (2) as printed",
        ),
        row(
            "DenseNet121 CE weighted by entropy",
            partial(entropy_weighting, reading="confusion", eq_1=config.factors),
            sigmoids,
            note="reading E, a guess: eq. (1) with -p log p as the weight of each class",
        ),
        row(PLAIN, bce, sigmoids, note="ours: eq. (1) without factors"),
    ]


def main() -> None:
    config, options = parse(Config, DEMO, __doc__, ON, released="zech2018")
    table = search.table(rows, config, options)
    data = dataset.load(options, config, split, table, phantoms=8000, resize=config.size)
    trained = train_table("mo2019", table, config, data, options)
    tables.write(trained, data, options, PROPOSED, OURS, config.split)
    runs.finish(trained)


if __name__ == "__main__":
    with one_sentence():
        main()
