"""Labels of synthetic patients: sampled down the dataset's tree, then made noisy, uncertain, blank.

Prevalences are those of the released datasets; data/datasets.py holds them.
"""

import numpy as np

from data import label_tree
from data.datasets import DATASETS, UNCERTAIN_BUT_TRUE
from data.phantom.knobs import DEFAULT_KNOBS, Knobs

NAMES = {name: dataset.hierarchy_labels for name, dataset in DATASETS.items()}
TREES = {name: dataset.hierarchy_tree for name, dataset in DATASETS.items()}
FINDINGS_WITH_CHILDREN = ("Enlarged Cardiomediastinum", "Lung Opacity", "Consolidation")

# CheXpert's training labels, in labels.CHEXPERT order: shares of -1, and of 0 (the rest is blank).
UNCERTAIN = np.array(DATASETS["chexpert"].uncertain)
NEGATIVE = np.array(
    [0, 0.097, 0.050, 0.030, 0.006, 0.093, 0.126, 0.013, 0.006, 0.252, 0.158, 0.001, 0.011, 0.027]
)
READERS = {"bc4": (2.9, 1.5), "bc6": (2.4, 1.3), "bc8": (2.0, 1.6)}  # skill, caution


def _children(dataset: str) -> list[tuple[int, np.ndarray]]:
    """Return (parent, its children) of every inner node, parents before their children."""
    parents = label_tree.parent_matrix(TREES[dataset])
    depth = label_tree.ancestor_matrix(TREES[dataset]).sum(axis=1)
    inner = sorted(label_tree.inner(TREES[dataset]), key=lambda node: depth[node])
    return [(int(node), np.flatnonzero(parents[:, node])) for node in inner]


def _is_union(dataset: str, node: int) -> bool:
    """Return True if the inner node is positive only where one of its children is."""
    return NAMES[dataset][node] not in FINDINGS_WITH_CHILDREN


def prevalences(dataset: str, floor: float = 0.0) -> np.ndarray:
    """Return the (labels,) released prevalences, with rare labels raised to `floor`.

    The ancestors of a raised label rise with it.
    """
    released = np.array(DATASETS[dataset].prevalence)
    raised = np.maximum(released, floor)
    for node, children in reversed(_children(dataset)):
        without = np.prod((1 - raised[children]) / (1 - released[children]))
        raised[node] = 1 - (1 - released[node]) * without
        low, high = raised[children].max(), raised[children].sum()
        raised[node] = np.clip(raised[node], low, high if _is_union(dataset, node) else 1)
    return raised


def released_shares(dataset: str) -> dict[str, float]:
    """Return the share of positives that the released dataset has, for the labels where known."""
    record = DATASETS[dataset]
    shares = dict(zip(record.hierarchy_labels, prevalences(dataset).tolist(), strict=True))
    shares = {name: share for name, share in shares.items() if name in record.labels}
    if record.uncertain and record.tree is not None:
        # the prevalences count uncertain labels that are true, and parents that reports leave blank
        parents = {record.labels[node] for node in label_tree.inner(record.tree)}
        uncertain = dict(zip(record.labels, record.uncertain, strict=True))
        shares = {
            name: share - UNCERTAIN_BUT_TRUE * uncertain[name]
            for name, share in shares.items()
            if name not in parents
        }
    return shares


def _independent_chances(ratios: np.ndarray) -> np.ndarray:
    """Return independent chances that give these ratios once some child must be positive.

    P(child | some child) = q / (1 - prod(1 - q)): q = ratio * z with z = 1 - prod(1 - ratio * z).
    """
    low, high = 1e-9, 1.0
    for _ in range(60):
        z = (low + high) / 2
        low, high = (z, high) if 1 - np.prod(1 - ratios * z) > z else (low, z)
    return ratios * low


def sample(dataset: str, wanted: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Return (units, labels) bool: one draw down the tree per row of uniforms in [0, 1)."""
    drawn = uniforms < wanted  # right for the roots; every child is redrawn below its parent
    for node, children in _children(dataset):
        ratios = wanted[children] / wanted[node]
        forced = _is_union(dataset, node)
        chances = _independent_chances(ratios) if forced else ratios
        none_yet = np.full(len(uniforms), forced)
        for position, child in enumerate(children):
            left = 1 - np.prod(1 - chances[position:])
            chance = np.where(none_yet, min(1, chances[position] / left), chances[position])
            drawn[:, child] = drawn[:, node] & (uniforms[:, child] < chance)
            none_yet &= ~drawn[:, child]
        if forced:  # rounding may leave a parent without a child
            drawn[:, children[0]] |= drawn[:, node] & none_yet
    return drawn


def sample_by_odds(
    dataset: str, knobs: Knobs, trained: np.ndarray, uniforms: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return (units, labels) bool: leaf labels equally common, inner labels closed above them.

    With the chance `knobs.together`, a finding follows a number drawn once for the whole image, so
    findings come together while each keeps its prevalence.
    """
    names = NAMES[dataset]
    drawn = np.zeros(uniforms.shape, bool)
    leaves = label_tree.leaves(TREES[dataset])
    wanted = [names.index(label) for label in knobs.findings] or leaves.tolist()
    shared, follows = rng.random((len(uniforms), 1)), rng.random(uniforms.shape) < knobs.together
    numbers = np.where(follows, shared, uniforms)
    drawn[:, wanted] = numbers[:, wanted] < knobs.chance(trained)[:, None]
    return label_tree.close(drawn.astype(np.float32), TREES[dataset]) > 0.5


def persistent_uniforms(rng: np.random.Generator, patients: np.ndarray, count: int) -> np.ndarray:
    """Return (units, count) uniforms; a later visit keeps most numbers of the previous one."""
    uniforms = rng.random((len(patients), count))
    kept = rng.random(uniforms.shape) < 0.6
    for unit in range(1, len(patients)):
        if patients[unit] == patients[unit - 1]:
            uniforms[unit] = np.where(kept[unit], uniforms[unit - 1], uniforms[unit])
    return uniforms


def noisy(
    dataset: str,
    truth: np.ndarray,
    wanted: np.ndarray,
    rng: np.random.Generator,
    noise: float = DEFAULT_KNOBS.label_noise,
) -> np.ndarray:
    """Return the labels with some missed and as many invented; the tree stays closed."""
    missed = rng.random(truth.shape) < noise
    invented = rng.random(truth.shape) < noise * wanted / (1 - wanted)
    noisy_labels = np.where(truth, ~missed, invented)
    for node, children in reversed(_children(dataset)):
        below = noisy_labels[:, children].any(axis=1)
        own = False if _is_union(dataset, node) else noisy_labels[:, node]
        noisy_labels[:, node] = below | own
    return noisy_labels


def to_draw(dataset: str, truth: np.ndarray) -> list[list[str]]:
    """Return the most specific positive labels of each row, which are the ones that are drawn."""
    below = truth @ label_tree.parent_matrix(TREES[dataset])  # positive children of each label
    shown = truth & (below == 0)
    return [[NAMES[dataset][label] for label in np.flatnonzero(row)] for row in shown]


def chexpert_table(truth: np.ndarray) -> np.ndarray:
    """Return (units, 14) bool in CheXpert's order: No Finding in front, Abnormal dropped."""
    return np.column_stack([~truth[:, :-2].any(axis=1), truth[:, :-1]])  # devices are no finding


def chexpert_uncertain(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (units, 14) of 1, 0, -1 and NaN (blank), as CheXpert's report labeller gives them."""
    share = truth.mean(axis=0).clip(1e-6, 1 - 1e-6)
    unsure = np.where(
        truth,
        np.minimum(UNCERTAIN_BUT_TRUE * UNCERTAIN / share, 0.6),
        (1 - UNCERTAIN_BUT_TRUE) * UNCERTAIN / (1 - share),
    )
    denied = NEGATIVE / (1 - share)
    released = np.where(truth, 1.0, np.where(rng.random(truth.shape) < denied, 0.0, np.nan))
    parents = label_tree.parent_matrix(label_tree.CHEXPERT)
    implied = truth & (truth @ parents > 0)  # reports name the specific finding, less its parent
    released[implied & (rng.random(truth.shape) < 0.4)] = np.nan
    released[rng.random(truth.shape) < unsure] = -1
    mentioned = np.isin(released[:, 1:-1], (1, -1)).any(axis=1)
    released[:, 0] = np.where(mentioned, np.nan, 1)
    return released


def reader(truth: np.ndarray, strengths: np.ndarray, name: str, rng) -> np.ndarray:
    """Return (studies, 14) bool calls of a simulated radiologist, who misses subtle findings."""
    skill, caution = READERS[name]
    called = skill * truth * strengths + rng.standard_normal(truth.shape) > caution
    called[:, 0] = False
    called = label_tree.close(called.astype(np.float32), label_tree.CHEXPERT) > 0.5
    called[:, 0] = ~called[:, 1:-1].any(axis=1)
    return called
