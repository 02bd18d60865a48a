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
from pathlib import Path

import numpy as np
import pandas as pd

import losses
import models
from data import DataError, chexpert, label_tree, labels, policies, splits
from data.augment import Augment
from evaluation import figures, metrics, predict
from evaluation.metrics import Group
from reproduce import activations, flags, penalty_tables, released, results, run

ORIGINAL = labels.ASADI[:14]
PARENTS = label_tree.parent_matrix(label_tree.ASADI)
PAPER = "HBCE data-driven"  # Figure 2: the data-driven penalty, scaled by 0.5
MC = f"{PAPER} (MC dropout)"
OF_14 = (
    Group("mean of the 14 CheXpert labels", ORIGINAL),
    Group("weighted mean of the 14 CheXpert labels", ORIGINAL, mean="positives"),
)


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


def derived(known: np.ndarray) -> np.ndarray:
    """The 21 targets of the 14 CheXpert labels (images, 14), in ASADI's order; NaN where open.

    Uncertain: none of the 14. Abnormal: neither No Finding nor Uncertain. The rest: any below.
    """

    def any_of(columns) -> np.ndarray:
        unknown = np.isnan(known[:, columns]).any(axis=1)
        return np.where((known[:, columns] == 1).any(axis=1), 1, np.where(unknown, np.nan, 0))

    below = label_tree.ancestor_matrix(label_tree.ASADI)[:14].T > 0  # (21, 14)
    uncertain = 1 - any_of(slice(None))
    none = known[:, ORIGINAL.index(labels.NO_FINDING)]
    abnormal = np.where((none == 1) | (uncertain == 1), 0, 1 - (none + uncertain))
    above = [any_of(below[labels.ASADI.index(name)]) for name in labels.ASADI[16:]]
    return np.column_stack([known, uncertain, abnormal, *above]).astype(np.float32)


def truth_of(frame: pd.DataFrame, uncertain: str) -> np.ndarray:
    """(images, 21) 0, 1 or NaN."""
    return derived(policies.apply(frame[list(ORIGINAL)].to_numpy(np.float32), uncertain))


def stale(history: list[dict], least: float = 0.0) -> list[bool]:
    """Of every epoch, whether its validation loss was no lower than all before, by `least`."""
    best, found = np.inf, []
    for line in history:
        found.append(not line["val_loss"] < best - least)
        best = best if found[-1] else line["val_loss"]
    return found


def rows(config: Config, options, frame: pd.DataFrame) -> list[run.Row]:
    """BCE on 14 and 21 labels; HBCE with every penalty, in both forms; the paper's with dropout."""
    truth = truth_of(frame, config.uncertain)
    train = (frame["split"] == "train").to_numpy()

    def rate(epoch: int, history: list[dict]) -> float:  # Keras' ReduceLROnPlateau, as released
        return max(config.learning_rate * 0.9 ** sum(stale(history, 1e-4)), 1e-8)

    def stop(history: list[dict]) -> bool:
        return len(history) >= config.patience and all(stale(history)[-config.patience :])

    def row(name, loss, of=slice(None), **more):
        names = labels.ASADI[of]

        def network():
            return models.classifier.build(
                config.backbone,
                len(names),
                config.size,
                config.weights,
                config.dropout,
                config.precision,
                head="asadi2025",
                fast=options.fast,
            )

        unused = ["released", "passes", *["uncertain"] * (config.labels != "chexpert")]
        return run.Row(
            name,
            names,
            truth[:, of],
            truth[:, of],
            loss,
            select=lambda truth, probabilities, loss: -loss,
            learning_rate=rate,
            augment=Augment(flip=True, upside_down=True, degrees=18, scale=0.05, shift=0.05),
            model=network,
            stop=stop,
            **{"epochs": config.epochs, "unused": unused} | more,
        )

    def bce():
        return losses.masking.MaskedBCE("mean")

    def hbce(name, weights):
        def loss(form):
            return lambda: losses.hierarchical_penalty.HierarchicalPenalty(weights, form)

        penalties = {  # in config.json
            f"{labels.ASADI[parent]} > {labels.ASADI[child]}": round(weights[child, parent], 6)
            for child, parent in np.argwhere(PARENTS > 0)
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
        *hbce("HBCE fixed 0.1", fixed(PARENTS, 0.1)),
        *hbce("HBCE fixed 0.5", fixed(PARENTS, 0.5)),
        *hbce(PAPER, of_data(truth[train], PARENTS, 0.5)),
        *hbce(f"{PAPER} 1.0", of_data(truth[train], PARENTS, 1.0)),
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


def groups(names) -> tuple[Group, ...]:
    """Means over 21 and over 14 labels; a network with 14 outputs has only the latter."""
    return (*metrics.ASADI, *OF_14) if len(names) == len(labels.ASADI) else OF_14


def read(options, config: Config) -> pd.DataFrame:
    """CheXpert with the training labels asked for."""
    try:
        return run.read(options, config, phantoms=1200, labels=config.labels)
    except DataError as error:
        if config.labels == "visualchexbert" and chexpert.VISUALCHEXBERT in str(error):
            raise DataError(f"{error}\nWithout that file: --labels chexpert.") from error
        raise


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chexpert"])
    frame = read(options, config)
    attrs = frame.attrs
    if public := (frame["split"] == "test").any():
        frame = splits.as_released(frame)  # as the authors did, the 234 images of valid as val
    else:
        frame = splits.held_out(frame, 0.1, seed=0, test="valid")
    data = run.decode(options, frame, attrs, config.size)
    runs = run.train("asadi2025", rows(config, options, data.frame), data, config, options)
    folder = run.paper_folder("asadi2025", options, data)
    if config.released != "none":
        theirs = folder / "released-predictions" / "seed-0"
        place = Path(config.released)
        runs.append(released.as_run("asadi2025", place, theirs, "HBCE (authors' predictions)"))
    scored = results.score(runs, groups, options.resamples)
    reason = None if config.labels == "visualchexbert" else "CheXpert's own training labels"
    reason = data.not_comparable or (reason if public else "the validation set")
    results.report("asadi2025", folder, scored, reason, {"HBCE": PAPER})
    means = [group.name for group in (*metrics.ASADI, *OF_14)]
    penalty_tables.report(folder, scored, labels.ASADI, PARENTS, means, "BCE", (MC, PAPER))
    phantom = data.not_comparable == run.PHANTOMS
    if PAPER in scored:
        found = scored[PAPER].predictions[0]
        title = f"Asadi et al. 2025, Figure 2: {PAPER}, scale 0.5"
        figure = folder / "figure-2.svg"
        figures.roc_curves(
            figure, found.targets, found.mean, found.labels, title=title, phantom=phantom
        )
    if MC in scored:
        title = f"Asadi et al. 2025, Figure 3: {PAPER}; labels that are true are bold"
        activations.figure(
            folder / "figure-3.png",
            scored[MC].folders[0],
            Path(attrs["folder"]),
            [*range(15, 21), 14, *range(14)],  # as printed: high-level labels and Uncertain on top
            ORIGINAL,
            f"{title} ({figures.PHANTOM_WARNING})" if phantom else title,
        )


if __name__ == "__main__":
    with flags.one_sentence():
        main()
