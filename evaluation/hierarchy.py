"""Hierarchies at prediction time: the chain rule, and how far predictions break parent >= child.

`parents` and `ancestors` are (labels, labels) 0/1 arrays: [m, p] is 1 where p is a parent, or m
itself or an ancestor, of m. Probabilities are (..., labels), so a leading member axis may stay.
"""

import numpy as np
import pandas as pd

from evaluation import EvaluationError, Names


def path_product(conditional: np.ndarray, ancestors: np.ndarray) -> np.ndarray:
    """P(m) as the product of P(a | its parents) over m and its ancestors, in float64."""
    conditional = np.asarray(conditional, float)
    _check_square(conditional, ancestors)
    if not ((conditional >= 0) & (conditional <= 1)).all():
        raise EvaluationError("the chain rule needs probabilities in [0, 1], without NaN")
    on_path = np.asarray(ancestors, float).T
    impossible = (conditional == 0).astype(float) @ on_path > 0
    logs = np.log(np.where(conditional == 0, 1, conditional)) @ on_path
    return np.where(impossible, 0, np.exp(logs))


def violations(
    probabilities: np.ndarray, parents: np.ndarray, labels: Names, threshold: float = 0.5
) -> pd.DataFrame:
    """One line for each parent and child, over images (N, labels).

    `contradictions` counts images that call the child present (above the threshold) and the parent
    absent; `exceeding` those with P(child) > P(parent), where `mean_excess` and `largest_excess`
    are of P(child) - P(parent).
    """
    probabilities = np.asarray(probabilities)
    _check_square(probabilities, parents)
    rows = []
    for child, parent in np.argwhere(np.asarray(parents) > 0):
        below, above = probabilities[:, parent], probabilities[:, child]
        excess = np.maximum(above.astype(float) - below, 0)
        broken = excess > 0
        rows.append(
            {
                "parent": labels[parent],
                "child": labels[child],
                "images": len(probabilities),
                "contradictions": int(((above > threshold) & ~(below > threshold)).sum()),
                "exceeding": int(broken.sum()),
                "mean_excess": excess[broken].mean() if broken.any() else 0.0,
                "largest_excess": excess.max(initial=0),
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = (
    "parent",
    "child",
    "images",
    "contradictions",
    "exceeding",
    "mean_excess",
    "largest_excess",
)


def _check_square(probabilities: np.ndarray, matrix: np.ndarray) -> None:
    labels = probabilities.shape[-1]
    if np.shape(matrix) != (labels, labels):
        raise EvaluationError(
            f"the hierarchy is over {len(matrix)} labels, but {labels} are predicted"
        )
