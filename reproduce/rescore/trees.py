"""Say what label trees do to the answers of flat networks, which were trained without one.

A flat network may call a child more probable than its parent. Three repairs are compared with its
own answers: capping children at their parents, multiplying down the tree, and multiplying every
finding by 1 - P(No Finding). Zech's network has no outputs for the inner nodes of ChestX-ray14's
tree, nor for No Finding: an inner node gets the probability that any finding below it is present if
they are independent, so it contradicts none of its children, and 1 - P(No Finding) is the root's.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import label_tree, labels
from evaluation import bootstrap, hierarchy, tables
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce.rescore.section import Section
from reproduce.tables import authors, details

MEAN = "mean of the findings"
NETWORKS = {"asadi2025": "Asadi, 668 images", "zech2018": "Zech, 22,433 images"}
CAPPED = "children capped at their parents"
PRODUCT = "multiplied down the tree"
GATED = "multiplied by 1 - P(No Finding)"


class Network(NamedTuple):
    """A network's probabilities for every node of a tree."""

    labels: list[str]
    tree: label_tree.Tree
    targets: np.ndarray  # (images, labels)
    probabilities: np.ndarray
    patients: np.ndarray
    normal: np.ndarray  # (images,) P(No Finding)


def violations(network: Network, resamples: int, seed: int) -> pd.DataFrame:
    """Return the pairs per image whose child exceeds its parent, at any size and at .5."""
    both = hierarchy.broken(network.probabilities, label_tree.parent_matrix(network.tree))
    kinds = dict(zip(("any size", "only the child above .5"), both, strict=True))
    images, pairs = both[0].shape
    counts = np.stack([each.sum(axis=1) for each in both] + [np.ones(images)], 1)
    drawn = bootstrap.totals(counts, network.patients, resamples, seed)
    rows = []
    for column, name in enumerate(kinds):
        low, high = bootstrap.interval(drawn[:, column] / drawn[:, -1])
        row = {"violation": name, "per_image": counts[:, column].mean(), "low": low, "high": high}
        rows.append(row | {"images": images, "pairs": pairs})
    return pd.DataFrame(rows)


def capped(probabilities: np.ndarray, tree: label_tree.Tree) -> np.ndarray:
    """Return the probabilities, each at most that of every ancestor."""
    ancestors = label_tree.ancestor_matrix(tree) > 0
    return np.stack([probabilities[:, above].min(axis=1) for above in ancestors], axis=1)


def repairs(
    probabilities: np.ndarray, tree: label_tree.Tree, normal: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the probabilities after each repair; `normal` is P(No Finding) of each image."""
    ancestors = label_tree.ancestor_matrix(tree)
    return {
        CAPPED: capped(probabilities, tree),
        PRODUCT: hierarchy.path_product(probabilities, ancestors),
        GATED: probabilities * (1 - normal)[:, None],
    }


def with_inner(leaves: np.ndarray, tree: label_tree.Tree) -> np.ndarray:
    """Return probabilities of all nodes: of any leaf below, as if the leaves were independent."""
    below = label_tree.ancestor_matrix(tree)[label_tree.leaves(tree)] > 0  # (leaves, nodes)
    return np.stack([1 - (1 - leaves[:, column]).prod(axis=1) for column in below.T], axis=1)


def differences(
    network: Network, findings: Sequence[str], resamples: int, seed: int
) -> pd.DataFrame:
    """Return the mean AUC over the findings before and after each repair, with the difference."""
    group = Group(MEAN, tuple(findings), metrics=("AUC",))
    frames = []
    for repair, after in repairs(network.probabilities, network.tree, network.normal).items():
        arrays = network.targets, network.probabilities, after, network.labels, network.patients
        frame = bootstrap.compare(*arrays, [group], resamples=resamples, seed=seed)
        frame = frame[(frame["metric"] == "AUC") & frame["group"].isin([*findings, MEAN])]
        frames.append(frame.assign(repair=repair).drop(columns="metric"))
    return pd.concat(frames, ignore_index=True)


def asadi(released: Predictions) -> Network:
    """Return Asadi's network, which has outputs for every node and for No Finding."""
    normal = released.mean[:, labels.ASADI.index(labels.NO_FINDING)]
    arrays = released.targets, released.mean, released.patients, normal
    return Network(list(labels.ASADI), label_tree.ASADI, *arrays)


def zech(released: Predictions) -> Network:
    """Return Zech's network with probabilities of the inner nodes of ChestX-ray14's tree."""
    tree, names = label_tree.CHESTXRAY14_HIERARCHY, list(labels.CHESTXRAY14_HIERARCHY)
    targets, nodes = (with_inner(each, tree) for each in (released.targets, released.mean))
    normal = 1 - nodes[:, names.index("Abnormal")]
    return Network(names, tree, targets, nodes, released.patients, normal)


def answer(options: argparse.Namespace) -> Section:
    """Answer how often flat networks contradict a tree, and whether repairs help."""
    read = {name: authors.read(name, options.released, options.truth) for name in NETWORKS}
    theirs = {
        "asadi2025": (asadi(read["asadi2025"].predictions), labels.CHEXPERT[1:]),
        "zech2018": (zech(read["zech2018"].predictions), labels.CHESTXRAY14),
    }
    sampling = options.resamples, options.seed
    broken, changed = [], []
    for name, (network, findings) in theirs.items():
        column = {"network": NETWORKS[name]}
        broken.append(violations(network, *sampling).assign(**column))
        changed.append(differences(network, findings, *sampling).assign(**column))
    counts, gains = pd.concat(broken, ignore_index=True), pd.concat(changed, ignore_index=True)
    any_size, at_half = counts[counts["network"] == NETWORKS["asadi2025"]].itertuples()
    means = gains[gains["group"] == MEAN]
    helped = int((means["low"] > 0).sum())
    short = (
        "Asadi's network calls a child more probable than its parent "
        f"{tables.number(any_size.per_image, 2)} times per image, but only "
        f"{tables.number(at_half.per_image)} times at the threshold of .5; of {len(means)} "
        f"repairs by a tree, {helped} raise the mean AUC beyond chance."
    )
    more = (
        "The penalty of Asadi's released code acts only at that threshold. Zech's network has no "
        "outputs for inner nodes; they are computed from its findings, so nothing is contradicted "
        "or capped. A product of probabilities changes how images are ranked."
    )
    shown = {
        "Contradictions per image": _wide(counts, "violation", "per_image", 3),
        "Mean AUC over the findings, after the repair minus before": _wide(
            means, "repair", "difference", 4
        ),
    }
    title = "What a label tree does to networks trained without one"
    return Section(title, short, more, shown, {"tree-repairs": gains, "tree-violations": counts})


def _wide(frame: pd.DataFrame, index: str, value: str, digits: int) -> pd.DataFrame:
    cells = frame.assign(cell=details.with_intervals(frame, value, digits=digits))
    wide = cells.pivot(index=index, columns="network", values="cell")
    return wide.loc[frame[index].unique()].rename_axis(index=None, columns=None)
