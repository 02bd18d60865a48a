"""Mask unknown labels: a NaN target has no loss and no gradient. Every loss uses this module.

`per_image` defines the denominator: an image's loss is the sum of its known labels' losses ("sum",
as in Chen eq. 4, Ge §2.1 and Mo eq. 1) or their mean ("mean"; 0 for an image without a known
label). Keras then averages over all images of the batch. With "sum" every known label has the same
weight, so images with unknown labels count less. With "mean" every image with a known label has the
same weight.
"""

import keras
from keras import ops


def split_known(targets, logits):
    """Return (known, targets, logits), with 0 for NaN targets, in float32 or float64."""
    logits = ops.convert_to_tensor(logits)
    dtype = "float64" if keras.backend.standardize_dtype(logits.dtype) == "float64" else "float32"
    targets = ops.cast(targets, dtype)
    known = ops.logical_not(ops.isnan(targets))
    # replace NaN before any arithmetic: 0 · NaN in a value or a gradient is NaN
    return known, ops.where(known, targets, ops.zeros_like(targets)), ops.cast(logits, dtype)


def cross_entropy(targets, logits):
    """Return -z log σ(y) - (1 - z) log(1 - σ(y)) per label; it is never negative."""
    return targets * ops.softplus(-logits) + (1 - targets) * ops.softplus(logits)


def per_image(losses, counted, labels="sum"):
    """Return the sum or mean of each image's losses over the counted labels."""
    if labels not in ("sum", "mean"):
        raise ValueError(f'labels must be "sum" or "mean", not {labels!r}')
    counted = ops.cast(counted, losses.dtype)
    total = ops.sum(losses * counted, axis=-1)  # losses of unknown labels are finite
    return total if labels == "sum" else total / ops.maximum(ops.sum(counted, axis=-1), 1)


def masked_bce(targets, logits, labels="sum"):
    """Return the binary cross-entropy over the known labels, per image."""
    known, targets, logits = split_known(targets, logits)
    return per_image(cross_entropy(targets, logits), known, labels)


@keras.saving.register_keras_serializable(package="losses")
class MaskedBCE(keras.losses.Loss):
    """Binary cross-entropy from logits that skips unknown (NaN) targets."""

    def __init__(
        self,
        labels="sum",
        name="masked_bce",
        reduction="sum_over_batch_size",
        dtype="float32",  # for every policy: a float16 sum over a batch overflows
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.labels = labels

    def call(self, y_true, y_pred):
        return masked_bce(y_true, y_pred, self.labels)

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}
