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
from data.datasets import CHESTXRAY14_FORMS
from reproduce.engine import dataset, runs, schedules, search
from reproduce.engine.options import (
    Backbone,
    BatchSize,
    Count,
    Pixels,
    Precision,
    Rate,
    one_sentence,
    parse,
)
from reproduce.engine.rows import Fit, Network, Row, Targets, Task, bce
from reproduce.engine.train import train_table
from reproduce.tables import released_rows, row_details, scoring

ON = CHESTXRAY14_FORMS


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
    """Return the frame with its sets, and why results cannot be compared with published ones."""
    return splits.by_patient(frame, seed=0), ""  # Ge 2018, §3: 70/10/20 at random, by patient


def targets(frame: pd.DataFrame) -> Targets:
    """Return the released labels, which are both learnt and scored."""
    released = frame[list(labels.CHESTXRAY14)].to_numpy(np.float32)
    return Targets(learnt=released, truth=released)


def weighted_ce(train: np.ndarray):  # Mo 2019, Table I: "weighted CE loss"
    """Return cross-entropy with one factor for the positives of all labels."""
    factors = losses.weighted_bce.factors(train.reshape(-1, 1))  # as if there were one label
    return losses.weighted_bce.WeightedBCE(*factors)


def rows(config: Config, dataset: str) -> list[Row]:
    """Return the published row, and the same without factors to see their effect."""
    task = Task(labels.CHESTXRAY14, targets)
    fit = Fit(config.epochs, schedules.Constant(config.learning_rate), config.batch_size)
    network = Network(config.backbone, config.size, config.weights, config.precision)
    return [
        Row("R-50 weighted CE", task, weighted_ce, fit, network),
        Row("R-50 plain CE", task, bce, fit, network),
    ]


def main() -> None:
    config, options = parse(Config, DEMO, __doc__, ON, released="zech2018")
    table = search.table(rows, config, options)
    data = dataset.load(options, config, split, table, phantoms=8000, resize=config.size)
    trained = train_table("wang2017", table, config, data, options)
    scored = scoring.score(trained, scoring.labels_and_mean, options.resamples)
    scored, released = released_rows.add(scored, data, options, scoring.labels_and_mean)
    folder, failed = runs.paper_folder("wang2017", options, data), runs.failed_rows(trained)
    scoring.write("wang2017", folder, scored, data, failed=failed, released=released)
    row_details.write(folder, trained, data, options)
    runs.finish(trained)


if __name__ == "__main__":
    with one_sentence():
        main()
