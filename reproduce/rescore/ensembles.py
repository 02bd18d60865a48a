"""Say what an ensemble is worth on radiographs: average networks that others released.

Six networks were trained by three people on the same split of ChestX-ray14 and scored on the same
22,433 images; ten models of the CheXpert leaderboard are scored on 500 studies. Probabilities are
averaged, and all differences are paired.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import labels
from evaluation import bootstrap, metrics, published, tables, uncertainty
from reproduce.rescore import leaderboard
from reproduce.rescore.section import Section
from reproduce.tables import authors, details

SIZES = (1, 2, 3)  # and all members
OTHERS = {  # source -> the networks of its files
    "daniel2024": ("DenseNet-201", "MobileNetV2", "ResNet-152", "ResNet-50"),
    "haooyuee2023": ("DenseNet-121, retrained",),
}
AUC, BRIER = "AUC", "Brier"
NEGATIVES: dict[
    str, Callable[[np.ndarray], np.ndarray]
] = {  # measure -> the targets that it is computed from
    AUC: np.asarray,
    "D-AUC": metrics.diseased_negatives,
    "N-AUC": metrics.normal_negatives,
}
ORDER = [*NEGATIVES, BRIER]
CHESTXRAY14, CHEXPERT = "ChestX-ray14", "CheXpert"


class Members(NamedTuple):
    """Several networks' probabilities of the same images."""

    names: Sequence[str]
    targets: np.ndarray  # (images, labels)
    probabilities: np.ndarray  # (members, images, labels)
    patients: np.ndarray


def read_chestxray14(folder: Path, label_file: Path | None) -> Members:
    """Read Zech's network and those that others trained with his code."""
    zech = authors.read("zech2018", folder, label_file).predictions
    names, probabilities = ["DenseNet-121 (Zech)"], [zech.mean]
    columns = [f"prob_{name}" for name in labels.CHESTXRAY14]
    for source, networks in OTHERS.items():
        for path in authors.find(source, folder):
            table = pd.read_csv(path, index_col="Image Index")
            probabilities.append(table.loc[zech.ids, columns].to_numpy(float))
        names += networks
    return Members(names, zech.targets, np.stack(probabilities), zech.patients)


def read_leaderboard(folder: Path) -> Members:
    """Read the models of the CheXpert leaderboard."""
    truth, models, _ = leaderboard.read(folder)
    targets = truth[leaderboard.FIVE].to_numpy(float)
    patients = authors.patients(truth.index)
    return Members([*models], targets, np.stack([*models.values()]), patients)


def measured(
    measure: str, members: Members, subset: Sequence[int], resamples: int, seed: int
) -> np.ndarray:
    """Return a measure of the mean of some members: its value, then its resampled values."""
    mean = members.probabilities[list(subset)].mean(axis=0)
    if measure == BRIER:
        value = metrics.macro_mean(uncertainty.brier(members.targets, mean))
        errors = np.stack([((mean - members.targets) ** 2).mean(axis=1), np.ones(len(mean))], 1)
        summed, images = bootstrap.totals(errors, members.patients, resamples, seed).T
        return np.concatenate([[value], summed / images])
    targets = NEGATIVES[measure](members.targets)
    drawn = bootstrap.scores(targets, mean, members.patients, resamples, seed).auc
    return metrics.macro_mean(np.concatenate([metrics.auroc(targets, mean)[None], drawn]))


def worth(
    members: Members, measures: Sequence[str], resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each measure by number of members, and the gain of all over one, with intervals.

    A measure of a number of members is its mean over all subsets of that size; measures other than
    the AUC are computed for one member and for all.
    """
    count = len(members.names)
    by_size, gains = [], []
    for measure in measures:
        means: dict[int, np.ndarray] = {}
        for size in sorted({*(SIZES if measure == AUC else SIZES[:1]), count}):
            subsets = [*itertools.combinations(range(count), size)]
            values = np.stack(
                [measured(measure, members, subset, resamples, seed) for subset in subsets]
            )
            if size == 1:
                signed = values if measure != BRIER else -values
                best = values[signed[:, 0].argmax()]
            means[size] = values.mean(axis=0)
            row = {"measure": measure, "members": size, "subsets": len(subsets)}
            by_size.append(row | _with_bounds(means[size]))
        for over, single in (("mean member", means[1]), ("best member", best)):
            row = {"measure": measure, "over": over, "members": count}
            gains.append(row | _with_bounds(means[count] - single))
    return pd.DataFrame(by_size), pd.DataFrame(gains)


def _with_bounds(values: np.ndarray) -> dict[str, float]:
    low, high = bootstrap.interval(values[1:])
    return {"value": float(values[0]), "low": low, "high": high}


def for_people(frame: pd.DataFrame, index: str, columns: str) -> pd.DataFrame:
    """Return one row per value of `index`, with one column per value of `columns`."""
    cells = frame.assign(cell=details.with_intervals(frame, digits=4))
    wide = cells.pivot(index=index, columns=columns, values="cell").fillna("")
    wide = wide.reindex(frame[index].unique())[frame[columns].unique()]
    return wide.rename_axis(index=None, columns=None)


def printed(row: str, split: str) -> str:
    """Return the mean AUC that Pham et al. print for a row."""
    cells = published.load("pham2019").query("metric == 'AUC' and column == 'mean'")
    text = cells[(cells["row"] == row) & (cells["split"] == split)]["value"].iloc[0]
    return tables.without_leading_zero(text)


def answer(options: argparse.Namespace) -> Section:
    """Answer what an ensemble of released networks gains, on both datasets."""
    sampling = options.resamples, options.seed
    six = read_chestxray14(options.released, options.truth)
    parts = {CHESTXRAY14: worth(six, ORDER, *sampling)}
    ten = read_leaderboard(options.released)
    parts[CHEXPERT] = worth(ten, (AUC,), *sampling)  # some of its scores are no probabilities
    by_size, gains = (
        pd.concat([frames[i].assign(images=name) for name, frames in parts.items()])
        for i in range(2)
    )
    gains["of"] = gains["images"] + ", over the " + gains["over"]
    by_size = by_size.sort_values(
        "measure", key=lambda names: names.map(ORDER.index), kind="stable"
    )
    by_size["size"] = by_size["measure"] + ", " + by_size["members"].astype(str)
    auc = by_size[by_size["measure"] == AUC]
    whole = auc[auc["images"] == CHEXPERT].iloc[-1]
    gain = gains.set_index(["images", "measure", "over"])
    best = gain.loc[(CHESTXRAY14, AUC, "best member")]
    short = (
        f"The mean of {len(six.names)} networks for ChestX-ray14 has a mean AUC "
        f"{tables.with_interval(best['value'], best['low'], best['high'], 4)} above the best of "
        "them."
    )
    more = (
        f"The networks are {'; '.join(six.names)}. D-AUC is against images with another finding, "
        "N-AUC against normal ones; a lower Brier score means better probabilities. Pham et al. "
        f"print {printed('U-Ones+CT+LSR', 'valid')} for one network and "
        f"{printed('Ours', 'valid')} for six with test-time augmentation. On their test set they "
        f"print {printed('Ours (test)', 'test')}; the mean of all {len(ten.names)} released "
        "leaderboard models, of which several are nearly the same, has "
        f"{tables.with_interval(whole['value'], whole['low'], whole['high'], 4)}. These models "
        "have no Brier score, because some of their scores exceed 1."
    )
    shown = {
        "Mean over all subsets of so many members": for_people(by_size, "size", "images"),
        "Gain of all members": for_people(gains, "measure", "of"),
    }
    frames = {"ensembles": by_size.drop(columns="size"), "ensemble-gains": gains.drop(columns="of")}
    return Section("What an ensemble is worth", short, more, shown, frames)
