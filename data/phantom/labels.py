"""Labels of drawn patients: sampled down the dataset's tree, then noisy, uncertain and blank.

Prevalences are the released datasets' own: ChestX-ray14's label counts, the PLCO lists of Chen et
al. 2019, and CheXpert's training labels with part of the uncertain ones counted as positive.
"""

import numpy as np

from data import label_tree, labels
from data.phantom.knobs import AS_EVER, Knobs

PREVALENCE = {
    "chestxray14": np.array(
        [11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227,
         11207, 32325, 19949, 45251, 51759]
    ) / 112120,
    "chexpert": np.array(
        [0.20, 0.143, 0.60, 0.045, 0.268, 0.14, 0.077, 0.24, 0.095, 0.417, 0.023, 0.042, 0.522,
         0.89]
    ),
    "plco": np.array(
        [0.120, 0.011, 0.0004, 0.0043, 0.116, 0.0038, 0.009, 0.0012, 0.017, 0.085, 0.037, 0.043,
         0.040, 0.030, 0.245, 0.018, 0.041, 0.156, 0.413]
    ),
}  # fmt: skip
NAMES = {
    "chestxray14": labels.CHESTXRAY14_HIERARCHY,
    "chexpert": labels.CHEXPERT_HIERARCHY,
    "plco": labels.PLCO,
}
TREES = {
    "chestxray14": label_tree.CHESTXRAY14_HIERARCHY,
    "chexpert": label_tree.CHEXPERT_HIERARCHY,
    "plco": label_tree.PLCO,
}
FINDINGS_WITH_CHILDREN = ("Enlarged Cardiomediastinum", "Lung Opacity", "Consolidation")

# CheXpert's training labels, in labels.CHEXPERT order: shares of -1, and of 0 (the rest is blank).
UNCERTAIN = np.array(
    [0, 0.056, 0.036, 0.025, 0.007, 0.058, 0.124, 0.084, 0.151, 0.014, 0.052, 0.012, 0.003, 0.005]
)
NEGATIVE = np.array(
    [0, 0.097, 0.050, 0.030, 0.006, 0.093, 0.126, 0.013, 0.006, 0.252, 0.158, 0.001, 0.011, 0.027]
)
UNCERTAIN_BUT_TRUE = 0.6  # the share of uncertain labels whose finding is there
READERS = {"bc4": (2.9, 1.5), "bc6": (2.4, 1.3), "bc8": (2.0, 1.6)}  # skill, caution


def _children(dataset: str) -> list[tuple[int, np.ndarray]]:
    """(parent, its children) of every inner node, parents before their children."""
    parents = label_tree.parent_matrix(TREES[dataset])
    depth = label_tree.ancestor_matrix(TREES[dataset]).sum(axis=1)
    inner = sorted(label_tree.inner(TREES[dataset]), key=lambda node: depth[node])
    return [(int(node), np.flatnonzero(parents[:, node])) for node in inner]


def _only_a_name(dataset: str, node: int) -> bool:
    """Whether the inner node is nothing but the OR of its children."""
    return NAMES[dataset][node] not in FINDINGS_WITH_CHILDREN


def prevalences(dataset: str, floor: float = 0.0) -> np.ndarray:
    """(labels,): of the released dataset, rare ones raised to `floor`, and ancestors with them."""
    released = PREVALENCE[dataset]
    raised = np.maximum(released, floor)
    for node, children in reversed(_children(dataset)):
        without = np.prod((1 - raised[children]) / (1 - released[children]))
        raised[node] = 1 - (1 - released[node]) * without
        low, high = raised[children].max(), raised[children].sum()
        raised[node] = np.clip(raised[node], low, high if _only_a_name(dataset, node) else 1)
    return raised


def _any_child(ratios: np.ndarray) -> np.ndarray:
    """Independent chances that give these ratios once at least one child must be positive.

    P(child | some child) = q / (1 - prod(1 - q)): q = ratio * z with z = 1 - prod(1 - ratio * z).
    """
    low, high = 1e-9, 1.0
    for _ in range(60):
        z = (low + high) / 2
        low, high = (z, high) if 1 - np.prod(1 - ratios * z) > z else (low, z)
    return ratios * low


def sample(dataset: str, wanted: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """(units, labels) bool: one ancestral draw from the tree for each row of uniforms in [0, 1)."""
    drawn = uniforms < wanted  # right for the roots; every child is redrawn below its parent
    for node, children in _children(dataset):
        ratios = wanted[children] / wanted[node]
        forced = _only_a_name(dataset, node)
        chances = _any_child(ratios) if forced else ratios
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
    """(units, labels) bool: leaf labels equally common, and inner labels the OR of their children.

    Every finding keeps its prevalence while `knobs.together` makes them come together: with that
    chance a finding follows the number that is drawn once for the whole image.
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
    """(units, count): a patient's later visits keep most of what the first one showed."""
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
    noise: float = AS_EVER.label_noise,
) -> np.ndarray:
    """Labels as a report or a busy reader has them: prevalences stay, and the tree stays closed."""
    missed = rng.random(truth.shape) < noise
    invented = rng.random(truth.shape) < noise * wanted / (1 - wanted)
    noisy_labels = np.where(truth, ~missed, invented)
    for node, children in reversed(_children(dataset)):
        below = noisy_labels[:, children].any(axis=1)
        own = False if _only_a_name(dataset, node) else noisy_labels[:, node]
        noisy_labels[:, node] = below | own
    return noisy_labels


def to_draw(dataset: str, truth: np.ndarray) -> list[list[str]]:
    """The labels of each row that have a signature of their own: the most specific ones."""
    below = truth @ label_tree.parent_matrix(TREES[dataset])  # positive children of each label
    shown = truth & (below == 0)
    return [[NAMES[dataset][label] for label in np.flatnonzero(row)] for row in shown]


def chexpert_table(truth: np.ndarray) -> np.ndarray:
    """(units, 14) bool in CheXpert's order: No Finding in front, Abnormal dropped."""
    return np.column_stack([~truth[:, :-2].any(axis=1), truth[:, :-1]])  # devices are no finding


def chexpert_uncertain(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(units, 14) of 1, 0, -1 and NaN (blank), as a report labeller leaves them."""
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
    """(studies, 14) bool: what one simulated radiologist calls; subtle findings are missed more."""
    skill, caution = READERS[name]
    called = skill * truth * strengths + rng.standard_normal(truth.shape) > caution
    called[:, 0] = False
    called = label_tree.close(called.astype(np.float32), label_tree.CHEXPERT) > 0.5
    called[:, 0] = ~called[:, 1:-1].any(axis=1)
    return called
