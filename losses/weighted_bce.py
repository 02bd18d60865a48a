"""Mo et al. 2019, eq. (1): binary cross-entropy with a factor per class for both terms.

    (1)  Loss = Σ_c [ -w+_c l_c log σ(y_c) - w-_c (1 - l_c) log(1 - σ(y_c)) ]

The equation is printed without factors. The text mentions "positive and negative factors" and later
only "a positive factor", without values; `factors` computes both readings. Every class needs a
known target. In a class without positive images the positive factor has no effect.
"""

import keras
import numpy as np
from keras import ops

from losses.masking import per_image, split_known


def factors(targets, reading="both"):
    """Return (w+, w-), each (labels,), from training targets; NaN is not counted.

    "both": w+ = N_neg / N and w- = N_pos / N;  "positive": w+ = N_neg / N_pos and w- = 1.
    """
    targets = np.asarray(targets, np.float64)  # (images, labels)
    known = np.sum(~np.isnan(targets), axis=0)
    if np.any(known == 0):
        raise ValueError(
            f"no training target is known for labels {np.flatnonzero(known == 0).tolist()}"
        )
    positives = np.nansum(targets, axis=0)
    negatives = known - positives
    if reading == "both":
        return negatives / known, positives / known
    if reading == "positive":
        return negatives / np.maximum(positives, 1), np.ones_like(positives)
    raise ValueError(f'reading must be "both" or "positive", not {reading!r}')


def weighted_bce(targets, logits, positive, negative, labels="sum"):
    """Return eq. (1) over the known labels, per image; the factors are (labels,) each."""
    known, targets, logits = split_known(targets, logits)  # (images, labels)
    positive = ops.convert_to_tensor(positive, dtype=logits.dtype)
    negative = ops.convert_to_tensor(negative, dtype=logits.dtype)
    losses = positive * targets * ops.softplus(-logits)
    losses = losses + negative * (1 - targets) * ops.softplus(logits)
    return per_image(losses, known, labels)


@keras.saving.register_keras_serializable(package="losses")
class WeightedBCE(keras.losses.Loss):
    """Mo eq. (1), with `positive` and `negative` from `factors`."""

    def __init__(
        self,
        positive,
        negative,
        labels="sum",
        name="weighted_bce",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.positive = np.asarray(positive, np.float32)
        self.negative = np.asarray(negative, np.float32)
        self.labels = labels

    def call(self, y_true, y_pred):
        return weighted_bce(y_true, y_pred, self.positive, self.negative, self.labels)

    def get_config(self):
        return {
            **super().get_config(),
            "positive": self.positive.tolist(),
            "negative": self.negative.tolist(),
            "labels": self.labels,
        }
