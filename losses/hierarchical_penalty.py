"""Asadi et al. 2025: binary cross-entropy plus a penalty on children above their parents (HBCE).

    L = L_BCE + Σ_{(p, c)} P_pc

L_BCE is the mean over labels; the sum is over all pairs of parent p and child c. The paper does not
define P. With the weights w_pc of `fixed` or `data_driven` and the probabilities σ, it is:

as_released     P = w_pc [σ_p < 0.5 and σ_c > 0.5]: a step with gradient 0, so training equals
                plain BCE, except for early stopping and checkpoints, which read the loss.
differentiable  P = w_pc max(0, σ_c - σ_p): ours.

The hierarchy may be a DAG. A pair with an unknown (NaN) target has no penalty.
"""

import keras
import numpy as np
from keras import ops

from losses.masking import masked_bce, split_known
from losses.penalties import data_driven, fixed  # noqa: F401  for callers

FORMS = ("as_released", "differentiable")


def penalty(targets, logits, weights, form="differentiable"):
    """Return Σ P_pc per image; `weights` are (labels, labels) by [child, parent], 0 for no pair."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    known, _, logits = split_known(targets, logits)  # (images, labels)
    weights = np.asarray(weights)
    if weights.shape != (logits.shape[-1],) * 2:
        raise ValueError(
            f"weights of shape {weights.shape} do not fit {logits.shape[-1]} logits per image"
        )
    children, parents = np.nonzero(weights)
    child, parent = ops.take(logits, children, axis=1), ops.take(logits, parents, axis=1)
    if form == "as_released":
        excess = ops.cast(ops.logical_and(parent < 0, child > 0), logits.dtype)
    else:
        excess = ops.relu(ops.sigmoid(child) - ops.sigmoid(parent))
    known = ops.logical_and(ops.take(known, children, axis=1), ops.take(known, parents, axis=1))
    terms = excess * ops.cast(weights[children, parents], logits.dtype)  # (images, pairs)
    return ops.sum(ops.where(known, terms, ops.zeros_like(terms)), axis=-1)


def hierarchical_penalty(targets, logits, weights, form="differentiable", labels="mean"):
    """Return L_BCE + Σ P_pc over the known labels, per image."""
    return masked_bce(targets, logits, labels) + penalty(targets, logits, weights, form)


@keras.saving.register_keras_serializable(package="losses")
class HierarchicalPenalty(keras.losses.Loss):
    """Binary cross-entropy plus penalties, with `weights` from `fixed` or `data_driven`."""

    def __init__(
        self,
        weights,
        form="differentiable",
        labels="mean",
        name="hierarchical_penalty",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.weights = np.asarray(weights, np.float32)
        self.form = form
        self.labels = labels

    def call(self, y_true, y_pred):
        return hierarchical_penalty(y_true, y_pred, self.weights, self.form, self.labels)

    def get_config(self):
        return {
            **super().get_config(),
            "weights": self.weights.tolist(),
            "form": self.form,
            "labels": self.labels,
        }
