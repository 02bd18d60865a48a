"""Unknown labels: a NaN target carries no loss and no gradient. Every loss masks through here.

The denominator, defined once in `per_image`: a loss has one value a label, and an image's value is
their sum over the labels that count ("sum", as Chen eq. 4, Ge sec. 2.1 and Mo eq. 1 print it), or
that sum divided by how many count ("mean", 0 where none does). Keras then averages over the images
of the batch, whether or not any of their labels count. Under "sum" every known label weighs the
same and an image with gaps weighs less; under "mean" every image with a known label weighs the
same.
"""

import keras
from keras import ops


def split_known(targets, logits):
    """Which targets are known; the targets with 0 for NaN; the logits: float32 or wider."""
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
