"""Apply hierarchies to predictions: the chain rule, and violations of parent >= child.

`parents` and `ancestors` are (labels, labels) arrays of 0 and 1. parents[m, p] is 1 if p is a
parent of m; ancestors[m, a] is 1 if a is m itself or one of its ancestors. Probabilities are
(..., labels), so they may have a leading axis of members.
"""

import numpy as np
import pandas as pd

from evaluation import EvaluationError, Names

COLUMNS = (
    "parent",
    "child",
    "images",
    "contradictions",
    "exceeding",
    "mean_excess",
    "largest_excess",
)


def path_product(conditional: np.ndarray, ancestors: np.ndarray) -> np.ndarray:
    """Return P(m), the product of P(a | parents of a) over m and its ancestors, in float64."""
    conditional = np.asarray(conditional, float)
    _check_square(conditional, ancestors)
    if not ((conditional >= 0) & (conditional <= 1)).all():
        raise EvaluationError("the chain rule needs probabilities in [0, 1], without NaN")
    on_path = np.asarray(ancestors, float).T
    impossible = (conditional == 0).astype(float) @ on_path > 0
    logs = np.log(np.where(conditional == 0, 1, conditional)) @ on_path
    return np.where(impossible, 0, np.exp(logs))


def broken(
    probabilities: np.ndarray, parents: np.ndarray, threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images break each pair of child and parent: (images, pairs) of bool, twice.

    First where the child is more probable than its parent, then where the child is above the
    threshold while the parent is not.
    """
    _check_square(probabilities, parents)
    child, parent = np.argwhere(np.asarray(parents) > 0).T
    above, below = probabilities[:, child], probabilities[:, parent]
    return above > below, (above > threshold) & ~(below > threshold)


def violations(
    probabilities: np.ndarray, parents: np.ndarray, labels: Names, threshold: float = 0.5
) -> pd.DataFrame:
    """Return one line per parent and child for probabilities (images, labels).

    `contradictions` counts the images whose child is above the threshold while the parent is not.
    `exceeding` counts the images with P(child) > P(parent); `mean_excess` and `largest_excess` are
    of P(child) - P(parent) over these images.
    """
    probabilities = np.asarray(probabilities)
    exceeding, contradicting = broken(probabilities, parents, threshold)
    rows = []
    pairs = np.argwhere(np.asarray(parents) > 0)
    for pair, (child, parent) in enumerate(pairs):
        below, above = probabilities[:, parent], probabilities[:, child]
        excess = np.maximum(above.astype(float) - below, 0)
        exceeds = exceeding[:, pair]
        rows.append(
            {
                "parent": labels[parent],
                "child": labels[child],
                "images": len(probabilities),
                "contradictions": int(contradicting[:, pair].sum()),
                "exceeding": int(exceeds.sum()),
                "mean_excess": excess[exceeds].mean() if exceeds.any() else 0.0,
                "largest_excess": excess.max(initial=0),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _check_square(probabilities: np.ndarray, matrix: np.ndarray) -> None:
    labels = probabilities.shape[-1]
    if np.shape(matrix) != (labels, labels):
        raise EvaluationError(
            f"the hierarchy is over {len(matrix)} labels, but {labels} are predicted"
        )
