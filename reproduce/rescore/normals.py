"""Split each AUC by the negatives it is against, as Ge et al. 2018 do, for released networks.

A label's negatives are normal images (without any finding) or have another finding. Its AUC is a
mixture, AUC = (1 - w) D + w N, where w is the share of normal images among its negatives. So D-AUC
and N-AUC of two papers can be compared only with w, which depends on the split.
"""

import argparse

import numpy as np
import pandas as pd

from data import labels
from evaluation import bootstrap, metrics, published, tables
from reproduce.rescore import ensembles
from reproduce.rescore.ensembles import Members
from reproduce.rescore.section import Section
from reproduce.tables import authors, details

COLUMNS = {"mean": "AUC", "D": "D-AUC", "N": "N-AUC", "W": "W-AUC"}
IMPLIED = "normal share"
PRINTED = ("D121", "D121 + D121-BL", "D121 + D121-F-MSML")  # Ge's rows of a DenseNet-121


def mixtures(targets: np.ndarray, probabilities: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Return AUC, D, N and w of each label, and how far the mixture is from the AUC."""
    auc, diseased, normal = (
        metrics.auroc(of(targets), probabilities) for of in ensembles.NEGATIVES.values()
    )
    share = metrics.actual_normal_share(targets)
    columns = {"label": names, "AUC": auc, "D-AUC": diseased, "N-AUC": normal, "w": share}
    deviation = (1 - share) * diseased + share * normal - auc
    return pd.DataFrame(columns).assign(deviation=deviation)


def by_network(
    members: Members, names: list[str], shares: dict[str, float], resamples: int, seed: int
) -> pd.DataFrame:
    """Return AUC, D- and N-AUC of every network, as means and by label, and W-AUC.

    A label's D-AUC is named `LABEL, D`. All have intervals.
    """
    by_label = [
        metrics.Group(f"{name}, {kind[0].upper()}", (name,), negatives=kind, metrics=("AUC",))
        for name in names
        for kind in ("diseased", "normal")
    ]
    groups = (*metrics.ge(shares), *by_label)
    frames = []
    for network, probabilities in zip(members.names, members.probabilities, strict=True):
        arrays = members.targets, probabilities, names, members.patients, groups
        table = bootstrap.table(*arrays, resamples=resamples, seed=seed)
        frames.append(table[table["metric"] == "AUC"].assign(network=network))
    frame = pd.concat(frames, ignore_index=True)
    return frame[["network", *frame.columns.drop(["network", "metric"])]]


def beside_printed(frame: pd.DataFrame, counted: float) -> pd.DataFrame:
    """Return one row per network, then Ge's printed rows, with the share that the AUCs imply."""
    printed = published.load("ge2018").query("table == 'Table 1'")
    printed = printed[printed["row"].isin(PRINTED)]
    texts = printed.assign(cell=printed["value"].map(tables.without_leading_zero))
    texts = texts.pivot(index="row", columns="column", values="cell").loc[[*PRINTED]]
    numbers = printed.pivot(index="row", columns="column", values="number").loc[[*PRINTED]]
    implied = metrics.normal_share(numbers["mean"], numbers["D"], numbers["N"])
    texts[IMPLIED] = [tables.number(share, 2) for share in implied]
    texts.index = "Ge, printed: " + texts.index
    frame = frame[frame["group"].isin(COLUMNS)]
    cells = frame.assign(cell=details.with_intervals(frame, digits=4))
    ours = cells.pivot(index="network", columns="group", values="cell")
    ours = ours.loc[frame["network"].unique()].assign(**{IMPLIED: tables.number(counted, 2)})
    wide = pd.concat([ours, texts])[[*COLUMNS, IMPLIED]]
    return wide.rename(columns=COLUMNS).rename_axis(index=None, columns=None)


def answer(options: argparse.Namespace) -> Section:
    """Answer how released networks fare against normal images and against other findings."""
    label_file = options.truth or authors.find_label_file(options.released)
    members = ensembles.read_chestxray14(options.released, label_file)
    names = list(labels.CHESTXRAY14)
    whole = pd.read_csv(label_file, index_col="Image Index", usecols=["Image Index"]).index
    shares = metrics.shares(authors.read_label_file(label_file, whole)[1], names)
    frame = by_network(members, names, shares, options.resamples, options.seed)
    split = pd.concat(
        mixtures(members.targets, probabilities, names).assign(network=network)
        for network, probabilities in zip(members.names, members.probabilities, strict=True)
    )
    deviation = split["deviation"].abs().max()
    counted = float(metrics.macro_mean(metrics.actual_normal_share(members.targets)))
    shown = beside_printed(frame, counted)
    values = frame.pivot(index="network", columns="group", values="value")
    short = (
        f"{(values['N'] > values['D']).sum()} of {len(values)} networks rank patients better "
        "against normal images (N-AUC) than against images with another finding (D-AUC), so a test "
        "set with more normal images has a higher AUC."
    )
    more = (
        "The AUC of a finding is the mixture (1 - w) D + w N, where w is the share of normal "
        "images among its negatives; this holds for every finding of every network (the largest "
        f"deviation is {deviation:.0e}). Printed means therefore reveal w: "
        f"{shown[IMPLIED].iloc[-1]} in Ge's random split, {tables.number(counted, 2)} on these "
        "images. W-AUC weighs each finding by its share of all images of the dataset; the weights "
        "do not sum to 1."
    )
    title = "Normal images make an AUC look better"
    frames = {"normals": frame, "normals-mixtures": split}
    return Section(title, short, more, {"Released networks, and Ge's printed rows": shown}, frames)
