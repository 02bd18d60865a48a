"""Compute the penalty weights of Asadi et al. 2025, (labels, labels) by [child, parent].

This module does not import Keras, so that tables can print the weights without it.
"""

import numpy as np

_SMOOTHING = 1e-6


def fixed(parents, value=0.5):
    """Return `value` as the weight of each pair [child, parent] of the parent matrix."""
    return value * (np.asarray(parents) > 0)


def data_driven(targets, parents, scale=0.5):
    """Return the weights scale · (1 - P(child = 1 | parent = 0)) over the training targets."""
    targets = np.asarray(targets, np.float64)  # (images, labels)
    weights = np.zeros(np.shape(parents))
    for child, parent in np.argwhere(np.asarray(parents) > 0):
        known = ~np.isnan(targets[:, child]) & (targets[:, parent] <= 0.5)
        positives = np.sum(targets[known, child] > 0.5)
        share = (positives + _SMOOTHING) / (known.sum() + 2 * _SMOOTHING)
        weights[child, parent] = scale * (1 - share)
    return weights
