"""Unknown labels: a NaN target carries no loss and no gradient. Every loss masks through here.

The denominator is defined once, in `per_image`: an image's loss is the sum of its known labels'
losses ("sum", as Chen eq. 4, Ge §2.1 and Mo eq. 1 print it), or their mean ("mean", 0 for an image
without a known label). Keras then averages over all images of the batch. With "sum" every known
label weighs the same, and an image with unknown labels weighs less; with "mean" every image with a
known label weighs the same.
"""

import keras
from keras import ops


def split_known(targets, logits):
    """(known, targets, logits): targets with 0 for NaN, all in float32 or float64."""
    logits = ops.convert_to_tensor(logits)
    dtype = "float64" if keras.backend.standardize_dtype(logits.dtype) == "float64" else "float32"
    targets = ops.cast(targets, dtype)
    known = ops.logical_not(ops.isnan(targets))
    # NaN leaves before any arithmetic: 0 · NaN, in a value or a gradient, would still be NaN
    return known, ops.where(known, targets, ops.zeros_like(targets)), ops.cast(logits, dtype)


def cross_entropy(targets, logits):
    """-z log σ(y) - (1 - z) log(1 - σ(y)), a value a label; never negative at any logit."""
    return targets * ops.softplus(-logits) + (1 - targets) * ops.softplus(logits)


def per_image(losses, counted, labels="sum"):
    """(images,) sum or mean of the (images, labels) losses over the labels that count."""
    if labels not in ("sum", "mean"):
        raise ValueError(f'labels is "sum" or "mean", not {labels!r}')
    counted = ops.cast(counted, losses.dtype)
    total = ops.sum(losses * counted, axis=-1)  # every loss is finite, also where it is unknown
    return total if labels == "sum" else total / ops.maximum(ops.sum(counted, axis=-1), 1)


def masked_bce(targets, logits, labels="sum"):
    """Binary cross-entropy over the known labels of each image, (images,)."""
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
        dtype="float32",  # whatever the policy: a float16 sum over a batch overflows
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.labels = labels

    def call(self, y_true, y_pred):
        return masked_bce(y_true, y_pred, self.labels)

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}
