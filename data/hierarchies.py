"""The hierarchy of every dataset: Chen's own for PLCO, ours for the public ones.

A label that a dataset does not release is positive where something below it is.
"""

import numpy as np
import pandas as pd

from data import label_tree, labels, policies

OF = {
    "plco": (labels.PLCO, label_tree.PLCO),
    "chexpert": (labels.CHEXPERT_HIERARCHY, label_tree.CHEXPERT_HIERARCHY),
    "chestxray14": (labels.CHESTXRAY14_HIERARCHY, label_tree.CHESTXRAY14_HIERARCHY),
}


def truth(frame: pd.DataFrame, dataset: str, uncertain: str) -> np.ndarray:
    """(images, labels) 0, 1 or NaN, closed under the hierarchy; a policy for CheXpert's -1."""
    names, tree = OF[dataset]
    released = frame[[name for name in names if name in frame]].to_numpy(np.float32)
    known = policies.apply(released, uncertain) if dataset == "chexpert" else released
    unknown = np.isnan(known).any(axis=1, keepdims=True)
    above = np.where(unknown, np.nan, 0).repeat(len(names) - known.shape[1], axis=1)
    return label_tree.close(np.concatenate([known, above], axis=1), tree)


def asadi(known: np.ndarray) -> np.ndarray:
    """The 21 targets of the 14 CheXpert labels (images, 14), in ASADI's order; NaN where open.

    Uncertain: none of the 14. Abnormal: neither No Finding nor Uncertain. The rest: any below.
    """

    def any_of(columns) -> np.ndarray:
        unknown = np.isnan(known[:, columns]).any(axis=1)
        return np.where((known[:, columns] == 1).any(axis=1), 1, np.where(unknown, np.nan, 0))

    below = label_tree.ancestor_matrix(label_tree.ASADI)[:14].T > 0  # (21, 14)
    uncertain = 1 - any_of(slice(None))
    none = known[:, labels.ASADI.index(labels.NO_FINDING)]
    abnormal = np.where((none == 1) | (uncertain == 1), 0, 1 - (none + uncertain))
    above = [any_of(below[labels.ASADI.index(name)]) for name in labels.ASADI[16:]]
    return np.column_stack([known, uncertain, abnormal, *above]).astype(np.float32)
