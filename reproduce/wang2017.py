"""ChestX-ray8: hospital-scale chest X-ray database and benchmarks.

Wang, Peng, Lu, Lu, Bagheri, Summers. CVPR 2017. The 14-label baseline, as others quote it.

    bash reproduce/wang2017.sh                               on drawn phantoms, minutes on a laptop
    bash reproduce/wang2017.sh --data-dir ChestX-ray14       the baseline, about a GPU day

Positives are rare, so their errors weigh more: one factor for all labels, from how many ones and
zeros there are. The walk-through of docs/adding-a-paper.md is about this script.

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
from evaluation import metrics
from reproduce import flags, results, run


@dataclass(frozen=True)
class Config:
    backbone: str = "resnet50"  # Ge 2018, Table 3
    weights: str = "imagenet"  # Ge 2018, §1
    size: int = 224  # unstated; ours
    batch_size: int = 32  # unstated; ours
    epochs: int = 10  # unstated; ours
    learning_rate: float = 1e-4  # unstated; ours, Adam
    precision: str = "float32"  # unstated; ours


DEMO = {"backbone": "tiny", "weights": "none", "size": 64, "epochs": 6, "learning_rate": 2e-3}


def rows(config: Config, options, frame: pd.DataFrame) -> list[run.Row]:
    """The published row, and what its factors are worth."""
    targets = frame[list(labels.CHESTXRAY14)].to_numpy(np.float32)

    def weighted_ce():  # Mo 2019, Table I: "weighted CE loss"
        of_training = targets[frame["split"] == "train"]
        factors = losses.weighted_bce.factors(of_training.reshape(-1, 1))  # as if of one label
        return losses.weighted_bce.WeightedBCE(*factors)

    def plain_ce():
        return losses.masking.MaskedBCE()

    def row(name, loss):
        return run.Row(
            name,
            labels.CHESTXRAY14,
            targets=targets,
            truth=targets,
            loss=loss,
            epochs=config.epochs,
            learning_rate=lambda epoch, history: config.learning_rate,
        )

    return [row("R-50 weighted CE", weighted_ce), row("R-50 plain CE", plain_ce)]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chestxray14"])
    frame = run.read(options, config, phantoms=2400)
    attrs = frame.attrs
    frame = splits.by_patient(frame, seed=0)  # Ge 2018, §3: 70/10/20 at random, by patient
    data = run.decode(options, frame, attrs, config.size)
    runs = run.train("wang2017", rows(config, options, data.frame), data, config, options)
    scored = results.score(runs, lambda names: metrics.MEAN, options.resamples)
    folder = run.paper_folder("wang2017", options, data)
    results.report("wang2017", folder, scored, data.not_comparable)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
