"""Label hierarchies as tuples of parent indices, with the arrays and checks made from them.

A tree is a tuple with one parent index per label, in label order, -1 for a root. A DAG has a tuple
of parent indices per label instead, () for a root. Every function accepts both.
"""

from collections.abc import Sequence

import numpy as np

from data import labels

Tree = tuple[int | tuple[int, ...], ...]


def from_children(names: tuple[str, ...], children: dict[str, tuple[str, ...]]) -> Tree:
    """Return the hierarchy over `names`; `children` maps each parent to its children."""
    parents: list[list[int]] = [[] for _ in names]
    for parent, offspring in children.items():
        for child in offspring:
            parents[names.index(child)].append(names.index(parent))
    if all(len(indices) <= 1 for indices in parents):
        return tuple(indices[0] if indices else -1 for indices in parents)
    return tuple(tuple(indices) for indices in parents)


def parent_matrix(tree: Tree) -> np.ndarray:
    """Return (labels, labels) float32: [m, p] is 1 where p is a direct parent of m."""
    matrix = np.zeros((len(tree), len(tree)), np.float32)
    for label, parents in enumerate(tree):
        for parent in (parents,) if isinstance(parents, int) else parents:
            if not -1 <= parent < len(tree) or parent == label:
                raise ValueError(f"label {label} cannot have parent {parent} of {len(tree)} labels")
            if parent >= 0:
                matrix[label, parent] = 1
    return matrix


def ancestor_matrix(tree: Tree) -> np.ndarray:
    """Return (labels, labels) float32: [m, a] is 1 where a is m itself or one of its ancestors."""
    parents = parent_matrix(tree)
    reached = np.eye(len(tree), dtype=np.float32)
    for _ in tree:  # one more generation per step, until nothing new is reached
        further = np.maximum(reached, np.minimum(reached @ parents, 1))
        if np.array_equal(further, reached):
            break
        reached = further
    if np.any(np.triu(reached * reached.T, 1)):
        raise ValueError("the hierarchy has a cycle: some label is its own ancestor")
    return reached


FILLS = ("all", "blanks", "none")


def close(
    targets: np.ndarray, tree: Tree, fill: str = "all", blank: np.ndarray | None = None
) -> np.ndarray:
    """Return targets in which the ancestors of a positive label (above 0.5) are as positive.

    `fill` "all" raises every ancestor, even a released negative or an unknown (NaN) one; "blanks"
    raises only those where `blank` is true; "none" raises none.
    """
    targets = np.asarray(targets, np.float32)  # (images, labels)
    if fill not in FILLS:
        raise ValueError(f"fill {fill!r} must be one of {', '.join(FILLS)}")
    if fill == "blanks" and (blank is None or blank.shape != targets.shape):
        raise ValueError(f"fill 'blanks' needs `blank` of the shape {targets.shape}")
    positive = np.where(targets > 0.5, targets, 0)
    ancestors = ancestor_matrix(tree)
    implied = np.stack([(positive * below).max(axis=1, initial=0) for below in ancestors.T], 1)
    raised = implied > 0
    if fill == "blanks" and blank is not None:
        raised = raised & blank
    elif fill == "none":
        raised[:] = False
    return np.where(raised, np.fmax(targets, implied), targets)


def overturned(targets: np.ndarray, tree: Tree, negative: np.ndarray) -> np.ndarray:
    """Return (labels,) counts of the explicit negatives that `close` turns positive.

    `negative` (images, labels) is true where a label was released as 0 and not as a blank.
    """
    return ((close(targets, tree) > 0.5) & negative).sum(axis=0)


def conditional(targets: np.ndarray, parents: np.ndarray, own: bool = True) -> np.ndarray:
    """Return targets that are NaN where a label's own parent is not positive; roots stay.

    With own=False, parent labels are NaN everywhere, and child labels are kept only in images whose
    parent labels are all positive. An uncertain parent has the value that the policy gave it; an
    ignored one is NaN, so its children are NaN too.
    """
    positive = targets > 0.5
    if own:
        learnt = (~positive).astype(np.float32) @ parents.T == 0
    else:
        parent = parents.any(axis=0)
        learnt = positive[:, parent].all(axis=1, keepdims=True) & ~parent
    return np.where(learnt, targets, np.float32(np.nan))


def violations(targets: np.ndarray, tree: Tree) -> np.ndarray:
    """Return (images, labels) bool: positive labels with a known ancestor that is not positive."""
    targets = np.asarray(targets, np.float32)
    not_positive = (targets <= 0.5).astype(np.float32)  # NaN is neither
    return (targets > 0.5) & (not_positive @ ancestor_matrix(tree).T > 0)


def depth(tree: Tree) -> int:
    """Return the number of nodes on the longest path from a root; 1 for a flat set of labels."""
    parents, nodes, level = parent_matrix(tree), np.ones(len(tree)), 0
    ancestor_matrix(tree)  # raises on a cycle, which has no depth
    while nodes.any():
        nodes, level = (parents @ nodes > 0).astype(float), level + 1
    return level


def cut(tree: Tree, levels: int) -> Tree:
    """Return the hierarchy reduced to at most `levels` levels; 1 makes every label a root.

    A label that is too deep becomes a child of its ancestor on the second-to-last level.
    """
    if levels >= depth(tree):
        return tree
    ancestors = ancestor_matrix(tree)
    level = ancestors.sum(axis=1)  # 1 at a root
    parents = []
    for label in range(len(tree)):
        above = [int(index) for index in np.flatnonzero(ancestors[label]) if index != label]
        kept = [index for index in above if level[index] < min(level[label], levels)]
        parents.append(max(kept, key=lambda index: level[index], default=-1))
    return tuple(parents)


def leaves(tree: Tree) -> np.ndarray:
    """Return the indices of the labels without children."""
    return np.flatnonzero(parent_matrix(tree).sum(axis=0) == 0)


def inner(tree: Tree) -> np.ndarray:
    """Return the indices of the labels with children."""
    return np.flatnonzero(parent_matrix(tree).sum(axis=0) > 0)


# Chen et al. 2019, Figure 1, as implied by every row of the released lists.
PLCO = from_children(
    labels.PLCO,
    {
        "Abnormal": (
            "Pulmonary Nodules and Masses",
            "Pulmonary",
            "Bone Lesion",
            "Cardiac Abnormality",
        ),
        "Pulmonary Nodules and Masses": (
            "Nodule",
            "Mass",
            "Pleural Based Mass",
            "Granuloma",
            "Hilar",
        ),
        "Pulmonary": (
            "Opacity",
            "Pleural Abnormality",
            "Distortion of Pulmonary Architecture",
            "Scarring",
            "COPD",
        ),
        "Opacity": ("Major Atelectasis", "Infiltration"),
        "Pleural Abnormality": ("Fluid in Pleural Space", "Pleural Fibrosis"),
    },
)

_IRVIN = {
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
    "Lung Opacity": ("Lung Lesion", "Edema", "Consolidation", "Atelectasis"),
    "Consolidation": ("Pneumonia",),
}
CHEXPERT = from_children(labels.CHEXPERT, _IRVIN)  # Irvin 2019, Figure 1; used by Pham 2019

# Asadi et al. 2025, released code: Cardiomegaly and Pneumonia have two parents.
ASADI = from_children(
    labels.ASADI,
    {
        "Abnormal": ("Opacity", "Cardiac", "Other"),
        "Opacity": ("Lung Opacity", "Lung Lesion", "Fluid Accumulation", "Missing Lung Tissue"),
        "Fluid Accumulation": ("Edema", "Consolidation", "Pleural Effusion", "Pneumonia"),
        "Missing Lung Tissue": ("Atelectasis", "Pneumothorax", "Pleural Other"),
        "Cardiac": ("Enlarged Cardiomediastinum", "Cardiomegaly"),
        "Other": ("Fracture", "Support Devices"),
        "Enlarged Cardiomediastinum": ("Cardiomegaly",),
        "Consolidation": ("Pneumonia",),
    },
)

# Ours, to run Chen's method on public data: PLCO's shape over ChestX-ray14's leaves.
CHESTXRAY14_HIERARCHY = from_children(
    labels.CHESTXRAY14_HIERARCHY,
    {
        "Abnormal": ("Nodules and Masses", "Pulmonary", "Cardiomegaly", "Hernia"),
        "Nodules and Masses": ("Nodule", "Mass"),
        "Pulmonary": ("Opacity", "Pleural Abnormality", "Emphysema", "Fibrosis"),
        "Opacity": ("Atelectasis", "Infiltration", "Consolidation", "Edema", "Pneumonia"),
        "Pleural Abnormality": ("Effusion", "Pleural_Thickening", "Pneumothorax"),
    },
)

# Ours: Irvin's tree under one root. Support Devices stays alone: a device is not an abnormality.
CHEXPERT_HIERARCHY = from_children(
    labels.CHEXPERT_HIERARCHY,
    {
        "Abnormal": (
            "Enlarged Cardiomediastinum",
            "Lung Opacity",
            "Pneumothorax",
            "Pleural Effusion",
            "Pleural Other",
            "Fracture",
        ),
        **_IRVIN,
    },
)

# name -> (the labels in order, the hierarchy over them)
HIERARCHIES: dict[str, tuple[tuple[str, ...], Tree]] = {
    "plco": (labels.PLCO, PLCO),  # Chen 2019
    "chexpert": (labels.CHEXPERT, CHEXPERT),  # Pham 2019
    "asadi": (labels.ASADI, ASADI),  # Asadi 2025
    "chestxray14": (labels.CHESTXRAY14_HIERARCHY, CHESTXRAY14_HIERARCHY),  # ours
    "chexpert-abnormal": (labels.CHEXPERT_HIERARCHY, CHEXPERT_HIERARCHY),  # ours
}


def parents_among(names: Sequence[str]) -> np.ndarray:
    """Return (labels, labels) parents in the hierarchy with these labels; zeros if there is none.

    A label whose parent is not among `names` becomes a child of its nearest ancestor that is.
    """
    exact = [pair for pair in HIERARCHIES.values() if list(pair[0]) == list(names)]
    wider = [pair for pair in HIERARCHIES.values() if set(pair[0]) >= set(names)]
    if not (exact or wider):
        return np.zeros((len(names), len(names)))
    order, tree = (exact or wider)[0]
    columns = [order.index(name) for name in names]
    above = ancestor_matrix(tree)[np.ix_(columns, columns)] - np.eye(len(columns))
    return above * (above @ above == 0)  # ancestors with nothing in between
