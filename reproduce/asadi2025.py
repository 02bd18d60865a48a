"""Clinically-inspired hierarchical multi-label classification of chest X-rays with a penalty.

Asadi, Sodoké, Gerard, Kersten-Oertel. 2025. The AUROC of the abstract, Figures 2 and 3.

    bash reproduce/asadi2025.sh                                  on drawn phantoms, minutes
    bash reproduce/asadi2025.sh --data-dir CheXpert-v1.0-small   the paper's, about ten GPU days

HBCE adds a penalty to binary cross-entropy wherever a child is called present and its parent
absent. As released, the penalty is a step: its gradient is zero, and the network learns what plain
BCE teaches. It acts only where the loss's value does: early stopping, the learning rate, and which
epoch is kept. So each penalty is run as released and in a differentiable form, which is ours.

Deviations, each explained in docs/papers/asadi2025.md:
1. Validation images are not augmented; the released loader augments them.
2. Pixels are normalised as DenseNet121's are everywhere here, instead of by 1/255 alone.
3. The released loader's other augmentation, of brightness and contrast, is left out.
4. Without CheXpert's test set, its validation set is the test and 1/10 of training validates.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

import losses
from data import hierarchies, label_tree, labels, policies, splits
from data.augment import Augment
from evaluation import predict
from reproduce import asadi2025_results, flags, run, schedules

PAPER = "HBCE data-driven"  # Figure 2: the data-driven penalty, scaled by 0.5
MC = f"{PAPER} (MC dropout)"


@dataclass(frozen=True)
class Config:
    backbone: str = "densenet121"  # abstract
    weights: str = "none"  # released code
    size: int = 320  # released code
    batch_size: int = 16  # released code
    epochs: int = 100  # released code, at most
    learning_rate: float = 1e-4  # released code, Adam
    patience: int = 10  # released code, epochs of early stopping
    dropout: float = 0.5  # released code
    passes: int = 10  # Figure 3, of Monte-Carlo dropout
    labels: str = "visualchexbert"  # abstract; "chexpert" has the labeller's own, with -1
    uncertain: str = "ones"  # ours, of --labels chexpert: zeros, ones or ignore
    precision: str = "float32"  # unstated; ours
    released: str = "none"  # ours: a folder with the authors' predictions, to stand beside ours


DEMO = {
    "backbone": "tiny",
    "size": 64,
    "batch_size": 32,
    "epochs": 8,
    "learning_rate": 2e-3,
    "patience": 3,
}


def rows(config: Config, options, frame: pd.DataFrame) -> list[run.Row]:
    """BCE on 14 and 21 labels; HBCE with every penalty, in both forms; the paper's with dropout."""
    released = frame[list(labels.ASADI[:14])].to_numpy(np.float32)
    parents = label_tree.parent_matrix(label_tree.ASADI)
    truth = hierarchies.asadi(policies.apply(released, config.uncertain))
    train = (frame["split"] == "train").to_numpy()

    def row(name, loss, of=slice(None), **more):
        unused = ["released", "passes", *["uncertain"] * (config.labels != "chexpert")]
        return run.Row(
            name,
            labels.ASADI[of],
            truth[:, of],
            truth[:, of],
            loss,
            select=lambda truth, probabilities, loss: -loss,
            learning_rate=schedules.plateau(config.learning_rate, 0.9, 1e-4, 1e-8),
            augment=Augment(flip=True, upside_down=True, degrees=18, scale=0.05, shift=0.05),
            network={"head": "asadi2025", "dropout": config.dropout},
            stop=schedules.patience(config.patience),
            **{"epochs": config.epochs, "unused": unused} | more,
        )

    def bce():
        return losses.masking.MaskedBCE("mean")

    def hbce(name, weights):
        def loss(form):
            return lambda: losses.hierarchical_penalty.HierarchicalPenalty(weights, form)

        penalties = {  # in config.json
            f"{labels.ASADI[parent]} > {labels.ASADI[child]}": round(weights[child, parent], 6)
            for child, parent in np.argwhere(parents > 0)
        }
        released, ours = (
            {"form": form, "penalties": penalties} for form in ("as_released", "differentiable")
        )
        note = "a penalty with a gradient, ours"
        return (
            row(name, loss("as_released"), settings=released),
            row(f"{name} (differentiable)", loss("differentiable"), settings=ours, note=note),
        )

    fixed, of_data = losses.penalties.fixed, losses.penalties.data_driven
    return [
        row("BCE on 14 labels", bce, slice(14)),
        row("BCE", bce),
        *hbce("HBCE fixed 0.1", fixed(parents, 0.1)),
        *hbce("HBCE fixed 0.5", fixed(parents, 0.5)),
        *hbce(PAPER, of_data(truth[train], parents, 0.5)),
        *hbce(f"{PAPER} 1.0", of_data(truth[train], parents, 1.0)),
        row(
            MC,
            bce,
            epochs=0,
            start_from=PAPER,
            passes=predict.dropped_out(config.passes),
            unused=["released"],
            note=f"mean of {config.passes} passes with dropout",
        ),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chexpert"])
    frame = run.read(options, config, phantoms=1200, labels=config.labels)
    attrs = frame.attrs
    other = None if config.labels == "visualchexbert" else "CheXpert's own training labels"
    if (frame["split"] == "test").any():
        frame = splits.as_released(frame)  # as the authors did, the 234 images of valid as val
    else:
        frame, other = splits.held_out(frame, 0.1, seed=0, test="valid"), "the validation set"
    data = run.decode(options, frame, attrs, config.size)
    authors = asadi2025_results.authors(data, config, options)  # or an error, before days go by
    runs = run.train("asadi2025", rows(config, options, data.frame), data, config, options)
    reason, home = data.not_comparable or other, attrs["folder"]
    asadi2025_results.report([*runs, *authors], data, options, home, reason, ("BCE", PAPER, MC))


if __name__ == "__main__":
    with flags.one_sentence():
        main()
