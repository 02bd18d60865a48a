"""Turn released labels into targets: resolve uncertain labels and add those above them.

Irvin 2019 and Pham 2019, section 3.4: U-Ignore, U-Zeros, U-Ones, and Pham's label smoothing of the
last two. A blank label counts as negative, which is common practice with CheXpert.

For the children of an uncertain parent the policy decides: the parent is positive under ones (also
smoothed, above 0.5), negative under zeros, and NaN under ignore, which masks the children.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from data import DataError, label_tree, labels

POLICIES = ("ignore", "zeros", "ones", "zeros-lsr", "ones-lsr")
INTERVALS = {"zeros-lsr": (0.0, 0.3), "ones-lsr": (0.55, 0.85)}  # Pham 2019, section 4.3


def apply(
    released: np.ndarray,
    policy: str,
    seed: int = 0,
    epoch: int | None = None,
    ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Return (images, labels) float32 targets in [0, 1] or NaN of labels 1, 0, -1, NaN (blank).

    The lsr policies need the images' `ids`: a draw is a function of (seed, epoch, id, label), the
    same for any subset or order of the images. Without `epoch`, all epochs share one draw.
    """
    if policy not in POLICIES:
        raise DataError(f"There is no policy {policy!r}; choose one of {', '.join(POLICIES)}.")
    released = np.asarray(released, np.float32)  # (images, labels)
    uncertain = released == -1
    targets = np.where(np.isnan(released) | uncertain, np.float32(0), released)
    if not np.isin(targets, (0, 1)).all():
        raise DataError("Released labels must be 1, 0, -1 or blank before a policy is applied.")
    if policy == "ignore":
        targets[uncertain] = np.nan
    elif policy == "ones":
        targets[uncertain] = 1
    elif policy in INTERVALS:
        if ids is None or len(ids) != len(released):
            raise ValueError(f"policy {policy} needs the id of each of the {len(released)} images")
        low, high = INTERVALS[policy]
        ids = list(ids)  # ignore the index that a frame's column has
        positions = zip(*np.nonzero(uncertain), strict=True)
        draws = _uniform(f"{seed}/{epoch}/{ids[image]}/{label}" for image, label in positions)
        targets[uncertain] = low + (high - low) * draws
    return targets


def _uniform(keys: Iterable[str]) -> np.ndarray:
    """Return one number in [0, 1) per key: the leading 53 bits of the key's hash."""
    digests = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys]
    return (np.frombuffer(b"".join(digests), "<u8") >> 11) * 2.0**-53


def hierarchy_targets(frame: pd.DataFrame, hierarchy: str, uncertain: str = "ones") -> np.ndarray:
    """Return (images, labels) 0, 1 or NaN over one of label_tree.HIERARCHIES, closed under it.

    `uncertain` is the policy for CheXpert's -1. A label that the dataset does not release is
    positive where one of its descendants is.
    """
    names, tree = label_tree.HIERARCHIES[hierarchy]
    released = frame[[name for name in names if name in frame]].to_numpy(np.float32)
    known = apply(released, uncertain) if hierarchy.startswith("chexpert") else released
    unknown = np.isnan(known).any(axis=1, keepdims=True)
    above = np.where(unknown, np.nan, 0).repeat(len(names) - known.shape[1], axis=1)
    return label_tree.close(np.concatenate([known, above], axis=1), tree)


def asadi_targets(known: np.ndarray) -> np.ndarray:
    """Return (images, 21) targets in ASADI's order of (images, 14) CheXpert labels; NaN if unknown.

    Uncertain: all 14 labels are 0. Abnormal: neither No Finding nor Uncertain. Each other inner
    label: one of its descendants is positive.
    """

    def any_of(columns) -> np.ndarray:
        unknown = np.isnan(known[:, columns]).any(axis=1)
        return np.where((known[:, columns] == 1).any(axis=1), 1, np.where(unknown, np.nan, 0))

    below = label_tree.ancestor_matrix(label_tree.ASADI)[:14].T > 0  # (21, 14)
    uncertain = 1 - any_of(slice(None))
    no_finding = known[:, labels.ASADI.index(labels.NO_FINDING)]
    normal = (no_finding == 1) | (uncertain == 1)
    abnormal = np.where(normal, 0, 1 - (no_finding + uncertain))
    above = [any_of(below[labels.ASADI.index(name)]) for name in labels.ASADI[16:]]
    return np.column_stack([known, uncertain, abnormal, *above]).astype(np.float32)
