"""Ge et al. 2018, eq. (2): the multi-label softmax loss (MSML).

Y are an image's positive labels, Ȳ its negative labels, x its logits, and s_l is the softmax of a
positive label against all negative labels:

    (2) as printed    E = 1/|Y| Σ_{l ∈ Y}      s_l,   s_l = exp x_l / (exp x_l + Σ_{k ∈ Ȳ} exp x_k)
    (2) as corrected  E = 1/|Y| Σ_{l ∈ Y} -log s_l = 1/|Y| Σ_{l ∈ Y} softplus(LSE_{k ∈ Ȳ} x_k - x_l)
    (5)               E = α (E_MSML + E_CE) + β E_FCE

Minimising the printed value lowers positives; the paper's own dE/dz = -y/z is that of -log. An
image without positive labels contributes 0 and still counts in the mean of the batch. Without
negative labels every s_l is 1, so -log s_l is 0. Unknown (NaN) labels are neither.
"""

import keras
from keras import ops

from losses.masking import masked_bce, per_image, split_known

FORMS = ("corrected", "as_printed")
_ABSENT = -1e30  # a logit whose exponential is 0; -inf would make gradients NaN


def multilabel_softmax(targets, logits, form="corrected"):
    """Return eq. (2) per image; a target above 0.5 is positive."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    known, targets, logits = split_known(targets, logits)  # (images, labels)
    positive = ops.logical_and(known, targets > 0.5)
    negative = ops.logical_and(known, targets <= 0.5)
    negatives = ops.where(negative, logits, ops.full_like(logits, _ABSENT))
    margin = ops.logsumexp(negatives, axis=-1, keepdims=True) - logits
    losses = ops.softplus(margin) if form == "corrected" else ops.sigmoid(-margin)
    return per_image(losses, positive, "mean")


@keras.saving.register_keras_serializable(package="losses")
class MultilabelSoftmax(keras.losses.Loss):
    """Ge eq. (2) with `form` "corrected" or "as_printed"."""

    def __init__(
        self,
        form="corrected",
        name="multilabel_softmax",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.form = form

    def call(self, y_true, y_pred):
        return multilabel_softmax(y_true, y_pred, self.form)

    def get_config(self):
        return {**super().get_config(), "form": self.form}


@keras.saving.register_keras_serializable(package="losses")
class FineGrained(keras.losses.Loss):
    """Ge eq. (5) on (images, 3 labels) logits: of the CE stream, the MSML stream and both (FCE).

    `labels` is "sum", as printed, or "mean": how CE and FCE are taken over an image's labels.
    """

    def __init__(
        self,
        alpha=0.2,
        beta=0.6,
        form="corrected",
        labels="sum",
        *,
        name="fine_grained",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha, self.beta, self.form, self.labels = alpha, beta, form, labels

    def call(self, y_true, y_pred):
        ce, msml, fce = ops.split(y_pred, 3, axis=-1)  # (images, labels) each
        own = multilabel_softmax(y_true, msml, self.form) + masked_bce(y_true, ce, self.labels)
        return self.alpha * own + self.beta * masked_bce(y_true, fce, self.labels)

    def get_config(self):
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "beta": self.beta,
            "form": self.form,
            "labels": self.labels,
        }
