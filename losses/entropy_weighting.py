"""Mo et al. 2019, eq. (2): multi-class entropy weighting.

    (2)  Loss = -Σ_i l_i p_i log p_i,   p = softmax(y) over the known classes

as_printed  the gradient acts through both p: below p = 1/e it lowers the p of a positive class.
detached    p_i is a constant weight, -Σ l_i sg(p_i) log p_i, so the gradient raises p (our repair).
confusion   "the confusion degree of each class" is a constant weight on eq. (1) (our guess):
            Σ_i sg(-p_i log p_i) [ -w+_i l_i log σ(y_i) - w-_i (1 - l_i) log(1 - σ(y_i)) ].

If there is one logit more than targets, the last class is No Finding, which is positive if no
target is: a softmax over 15 classes. Unknown (NaN) classes are left out of the softmax and have no
term and no gradient.
"""

import keras
import numpy as np
from keras import ops

from losses.masking import per_image, split_known
from losses.weighted_bce import weighted_bce

READINGS = ("as_printed", "detached", "confusion")


def with_no_finding(targets):
    """Append No Finding to the targets: 1 - max, or NaN if it depends on an unknown target."""
    targets = ops.convert_to_tensor(targets)
    unknown = ops.isnan(targets)
    most = ops.max(ops.where(unknown, ops.zeros_like(targets), targets), axis=-1, keepdims=True)
    undecided = ops.logical_and(ops.any(unknown, axis=-1, keepdims=True), most <= 0.5)
    no_finding = ops.where(undecided, ops.full_like(most, np.nan), 1 - most)
    return ops.concatenate([targets, no_finding], axis=-1)


def entropy_weighting(targets, logits, reading="as_printed", positive=1.0, negative=1.0):
    """Return eq. (2) per image; only the reading "confusion" uses the factors of eq. (1)."""
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {', '.join(READINGS)}, not {reading!r}")
    known, targets, logits = split_known(targets, logits)  # (images, classes)
    log_p = ops.log_softmax(ops.where(known, logits, ops.full_like(logits, -1e30)), axis=-1)
    log_p = ops.where(known, log_p, ops.zeros_like(log_p))
    p = ops.exp(log_p)
    if reading == "as_printed":
        losses = -targets * p * log_p
    elif reading == "detached":
        losses = -targets * ops.stop_gradient(p) * log_p
    else:
        entropy = ops.stop_gradient(-p * log_p)
        weights = [entropy * ops.convert_to_tensor(w, dtype=p.dtype) for w in (positive, negative)]
        return weighted_bce(ops.where(known, targets, np.nan), logits, *weights)
    return per_image(losses, known)


@keras.saving.register_keras_serializable(package="losses")
class EntropyWeighting(keras.losses.Loss):
    """Mo eq. (2) times `scale`, optionally with the `factors` (w+, w-) of eq. (1).

    With "as_printed" and "detached", `factors` add eq. (1) to the loss. With "confusion" they are
    the factors of the loss itself.
    """

    def __init__(
        self,
        reading="as_printed",
        scale=1.0,
        factors=None,
        name="entropy_weighting",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.reading = reading
        self.scale = scale
        self.factors = None if factors is None else np.asarray(factors, np.float32)

    def call(self, y_true, y_pred):
        if y_pred.shape[-1] == y_true.shape[-1] + 1:
            y_true = with_no_finding(y_true)
        factors = (1.0, 1.0) if self.factors is None else tuple(self.factors)
        losses = self.scale * entropy_weighting(y_true, y_pred, self.reading, *factors)
        if self.factors is not None and self.reading != "confusion":
            losses = losses + weighted_bce(y_true, y_pred, *factors)
        return losses

    def get_config(self):
        return {
            **super().get_config(),
            "reading": self.reading,
            "scale": self.scale,
            "factors": None if self.factors is None else self.factors.tolist(),
        }
