"""ChestX-ray8: hospital-scale chest X-ray database and benchmarks.

Wang, Peng, Lu, Lu, Bagheri, Summers. CVPR 2017. The 14-label baseline, as others quote it.

    bash reproduce/wang2017.sh                               on drawn phantoms, minutes on a laptop
    bash reproduce/wang2017.sh --data-dir ChestX-ray14       the baseline, about 2 GPU hours *
    * estimated: 20 epochs of 78,500 images at 300 ResNet-50 images a second, and validation.

Positives are rare, so their errors weigh more: one factor for all labels, from the counts of
positive and negative ones. The walk-through of docs/adding-a-paper.md is about this script.

Deviations:
1. The numbers are those that Mo 2019 and Ge 2018 quote, who say no more of the training than is
   marked below; the paper itself was not read.
2. The factors are counted once, over the training images, not anew in every batch.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

import losses
from data import labels, splits
from reproduce.engine import dataset, flags, loop, plan, schedules
from reproduce.engine.ranges import Backbone, BatchSize, Count, Pixels, Precision, Rate
from reproduce.engine.rows import Data, Fit, Row, Task
from reproduce.tables import released_rows, row_details, scoring


@dataclass(frozen=True)
class Config:
    backbone: Backbone = "resnet50"  # Ge 2018, Table 3
    weights: str = "imagenet"  # Ge 2018, §1
    size: Pixels = 224  # unstated; ours
    batch_size: BatchSize = 32  # unstated; ours
    epochs: Count = 10  # unstated; ours
    learning_rate: Rate = 1e-4  # unstated; ours, Adam
    precision: Precision = "float32"  # unstated; ours


DEMO = {"backbone": "tiny", "weights": "none", "size": 32, "batch_size": 64, "epochs": 8,
        "learning_rate": 4e-3}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """The sets, and why their scores cannot be compared with published ones."""
    return splits.by_patient(frame, seed=0), ""  # Ge 2018, §3: 70/10/20 at random, by patient


def rows(config: Config, data: Data) -> list[Row]:
    """The published row, and what its factors are worth."""
    targets = data.frame[list(labels.CHESTXRAY14)].to_numpy(np.float32)
    task = Task(labels.CHESTXRAY14, targets, truth=targets)
    fit = Fit(config.epochs, schedules.constant(config.learning_rate))
    network = {"backbone": config.backbone}

    def weighted_ce():  # Mo 2019, Table I: "weighted CE loss"
        of_training = targets[data.frame["split"] == "train"]
        factors = losses.weighted_bce.factors(of_training.reshape(-1, 1))  # as if of one label
        return losses.weighted_bce.WeightedBCE(*factors)

    def plain_ce():
        return losses.masking.MaskedBCE()

    return [
        Row("R-50 weighted CE", task, weighted_ce, fit, network=network),
        Row("R-50 plain CE", task, plain_ce, fit, network=network),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chestxray14"])
    data = dataset.load(options, config, split, rows, phantoms=8000, resize=config.size)
    runs = loop.train("wang2017", rows, data, config, options)
    scored = scoring.score(runs, scoring.labels_and_mean, options.resamples)
    scored, released = released_rows.add(scored, data, options, scoring.labels_and_mean)
    folder, failed = loop.paper_folder("wang2017", options, data), plan.failed_rows(runs)
    scoring.write("wang2017", folder, scored, data, failed=failed, released=released)
    row_details.write(folder, runs, data, options)
    loop.finish(runs)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
