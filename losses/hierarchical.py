"""Chen et al. 2019: cross-entropy of conditional (HLCP) and unconditional (HLUP) probabilities.

Logit y_m is that of P(m | parents of m positive), z_m is the target, A(m) is m itself and all its
ancestors, and CE(z, p) = -z log p - (1 - z) log(1 - p).

    (2)  L_HLCP = Σ_m [every parent of m is positive] CE(z_m, σ(y_m))    roots always count
    (3)  p_m    = Π_{a ∈ A(m)} σ(y_a)                                    the chain rule
    (4)  L_HLUP = Σ_m CE(z_m, p_m)

(2) and (3) are on a page that is missing from the text; the other equations allow no other form.
The hierarchy may be a tree or a DAG. An unknown (NaN) target has no term, and in (2) its children
have none either. In (4) its logit still affects the labels below it through the chain rule.

The forms of (4):

exact     -log p_m = s_m = Σ softplus(-y_a), and -log(1 - p_m) = -log(1 - exp(-s_m)), in time
          linear in the path. s is stored times 2^80, so that it neither vanishes if all logits are
          large (up to 120; beyond, the value is constant and the gradient remains) nor overflows.
powerset  (5)-(7) as printed: Σ_a CE(z_m, σ(y_a)) + γ, γ a LogSumExp over all subsets of A(m).
naive     the product of (3) in float32, clipped to [1e-7, 1 - 1e-7].
rescale   naive with each factor rescaled to [0.02, 1]: 0.02^4 > 1e-7, for paths of four nodes.
maximum   (23)-(24), an approximation of (7) for large hierarchies: the largest sum over a subset
          instead of LSE. With it the term of a negative label is Σ softplus(-|y_a|) + max(0, min
          y_a), at most log(2^n - 1) too large for a path of n nodes.
"""

import functools
import itertools

import keras
import numpy as np
from keras import ops

from losses.masking import cross_entropy, per_image, split_known

FORMS = ("exact", "powerset", "naive", "rescale", "maximum")
LARGEST_POWERSET = 16  # nodes on a path; 65,535 subsets per label
_CLIP = 1e-7
_FLOOR = 0.02
_SCALE = 2.0**80  # multiplying by a power of two does not round


def hlcp(targets, logits, parents, labels="sum"):
    """Return eq. (2) per image; parents[m, p] is 1 if p is a parent of m."""
    known, targets, logits = split_known(targets, logits)  # (images, labels)
    not_positive = ops.cast(targets <= 0.5, logits.dtype)  # an unknown parent is not positive
    parents = ops.cast(_checked(parents, logits, itself=False), logits.dtype)
    blocked = not_positive @ ops.transpose(parents) > 0.5
    counted = ops.logical_and(known, ops.logical_not(blocked))
    return per_image(cross_entropy(targets, logits), counted, labels)


def hlup(targets, logits, ancestors, form="exact", labels="sum", sums=None):
    """Return eq. (4) per image; ancestors[m, a] is 1 if a is in A(m).

    `sums` selects how terms are added along paths: by a "matrix" product or by "gather". None
    selects the one that does not round on this device.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    known, targets, logits = split_known(targets, logits)  # (images, labels)
    ancestors = _checked(ancestors, logits, itself=True)
    if form == "exact":
        losses = _exact(targets, logits, ancestors, sums or _unrounded_sums(logits))
    elif form == "powerset":
        losses = _powerset(targets, logits, ancestors)
    elif form == "maximum":
        losses = _maximum(targets, logits, ancestors, sums or _unrounded_sums(logits))
    else:
        floor = _FLOOR if form == "rescale" else 0.0
        losses = _product(targets, logits, ancestors, floor)
    return per_image(losses, known, labels)


def _checked(relatives, logits, itself):
    """Return the hierarchy as booleans; raise ValueError if its shape or diagonal is wrong."""
    relatives = np.asarray(relatives) > 0
    if relatives.shape != (logits.shape[-1],) * 2:
        raise ValueError(
            f"a hierarchy of shape {relatives.shape} does not fit {logits.shape[-1]} logits"
        )
    if np.any(np.diag(relatives) != itself):
        raise ValueError(
            "every label belongs to its own ancestors in HLUP"
            if itself
            else "no label is its own parent in HLCP"
        )
    return relatives


def _unrounded_sums(logits):
    """Return the method that does not round; matrix products on a GPU round to 10 bits (TF32)."""
    if keras.backend.standardize_dtype(logits.dtype) == "float64":
        return "matrix"
    if keras.backend.backend() == "torch":
        return "gather"  # Keras cannot list torch's devices
    on_cpu = all(device.startswith("cpu") for device in keras.distribution.list_devices())
    return "matrix" if on_cpu else "gather"


def _exact(targets, logits, ancestors, sums):
    over_ancestors, over_descendants = _path_sums(ancestors, sums)

    @ops.custom_gradient  # same numbers as automatic differentiation in half the time
    def losses(logits):
        y = ops.clip(logits, -1e9, 120)  # limit of float32 · 2^80; the gradient remains beyond it
        near = ops.minimum(y, 50)
        far = ops.exp(near - y) * _SCALE  # softplus(-y) equals exp(-y) above 50
        scaled = over_ancestors(ops.softplus(-near) * far)
        s = scaled * (1 / _SCALE)  # -log p
        # (1 - p) / p times 2^80; s itself where that underflows, limited to 33 against overflow
        against = ops.maximum(ops.expm1(ops.minimum(s, 33)) * _SCALE, scaled)
        # log1p of p / (1 - p), in two steps because the ratio may overflow float32
        not_p = ops.log1p(ops.minimum(_SCALE / against, 2.0**60))
        not_p = not_p - ops.log(ops.minimum(against * 2.0**-20, 1))
        negative = 1 - targets

        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            slope = negative / against - targets * (1 / _SCALE)
            return over_descendants(slope * upstream) * ops.sigmoid(-near) * far

        return targets * s + negative * not_p, grad

    return losses(logits)


def _path_sums(ancestors, sums):
    """Return two functions: the sum over each label's ancestors, and over its descendants."""
    if sums == "matrix":

        def product(values, matrix):
            return values @ ops.cast(matrix, values.dtype)

        return (lambda y: product(y, ancestors.T)), (lambda y: product(y, ancestors))
    if sums != "gather":
        raise ValueError(f'sums must be "matrix" or "gather", not {sums!r}')
    pairs = [ops.convert_to_tensor(i, dtype="int32") for i in np.nonzero(ancestors)]

    def gathered(values, labels, relatives):
        terms = ops.take(ops.transpose(values), relatives, axis=0)  # (pairs, images)
        return ops.transpose(ops.segment_sum(terms, labels, num_segments=len(ancestors)))

    return (lambda y: gathered(y, *pairs)), (lambda y: gathered(y, *pairs[::-1]))


@functools.cache
def _subsets(nodes):
    """Return all non-empty subsets of nodes as columns, (nodes, 2^nodes - 1)."""
    return np.array(list(itertools.product((0, 1), repeat=nodes))[1:]).T


def _powerset(targets, logits, ancestors):
    lengths = ancestors.sum(axis=1)
    if lengths.max() > LARGEST_POWERSET:
        raise ValueError(
            f"a path of {lengths.max()} nodes has {2.0 ** lengths.max():.3g} subsets, but the power"
            f' set form is limited to {LARGEST_POWERSET} nodes; use form="exact"'
        )
    losses, order = [], []
    for length in np.unique(lengths):  # labels with equally many ancestors share their subsets
        labels = np.flatnonzero(lengths == length)
        paths = np.nonzero(ancestors[labels])[1].reshape(-1, length)
        y = ops.take(logits, paths, axis=1)  # (images, these labels, length)
        z = ops.take(targets, labels, axis=1)  # (images, these labels)
        terms = ops.sum(cross_entropy(z[..., None], y), axis=-1)  # (6)
        subsets = ops.convert_to_tensor(_subsets(int(length)), dtype=logits.dtype)
        lse = ops.logsumexp(-y @ subsets, axis=-1)
        losses.append(terms - (1 - z) * (ops.sum(y, axis=-1) + lse))  # (5), (7)
        order.append(labels)
    return ops.take(ops.concatenate(losses, axis=1), np.argsort(np.concatenate(order)), axis=1)


def _along_paths(combine, values, ancestors, neutral):
    """Combine the values of each label and its ancestors; shorter paths are filled up."""
    padded = ops.concatenate([values, ops.full_like(values[:, :1], neutral)], axis=1)
    paths = np.argsort(~ancestors, axis=1, kind="stable")[:, : ancestors.sum(axis=1).max()]
    paths = np.where(np.take_along_axis(ancestors, paths, axis=1), paths, len(ancestors))
    return functools.reduce(combine, (ops.take(padded, step, axis=1) for step in paths.T))


def _maximum(targets, logits, ancestors, sums):
    over_ancestors, _ = _path_sums(ancestors, sums)
    positive = over_ancestors(ops.softplus(-logits))
    lowest = _along_paths(ops.minimum, logits, ancestors, 1e9)
    near_zero = over_ancestors(ops.softplus(-logits) - ops.relu(-logits))
    return targets * positive + (1 - targets) * (near_zero + ops.relu(lowest))


def _product(targets, logits, ancestors, floor):
    factors = floor + (1 - floor) * ops.sigmoid(logits)
    p = _along_paths(ops.multiply, factors, ancestors, 1)
    p = ops.clip(p, _CLIP, 1 - _CLIP)
    return -targets * ops.log(p) - (1 - targets) * ops.log(1 - p)


@keras.saving.register_keras_serializable(package="losses")
class HLCP(keras.losses.Loss):
    """Chen eq. (2): each label is trained on the images in which its parents are positive."""

    def __init__(
        self, parents, labels="sum", name="hlcp", reduction="sum_over_batch_size", dtype="float32"
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.parents = np.asarray(parents, np.float32)
        self.labels = labels

    def call(self, y_true, y_pred):
        return hlcp(y_true, y_pred, self.parents, self.labels)

    def get_config(self):
        # lists: an array would not survive model.save
        return {**super().get_config(), "parents": self.parents.tolist(), "labels": self.labels}


@keras.saving.register_keras_serializable(package="losses")
class HLUP(keras.losses.Loss):
    """Chen eq. (4): each label is the product of probabilities along its path, on all images."""

    def __init__(
        self,
        ancestors,
        form="exact",
        labels="sum",
        name="hlup",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ancestors = np.asarray(ancestors, np.float32)
        self.form = form
        self.labels = labels

    def call(self, y_true, y_pred):
        return hlup(y_true, y_pred, self.ancestors, self.form, self.labels)

    def get_config(self):
        return {
            **super().get_config(),
            "ancestors": self.ancestors.tolist(),
            "form": self.form,
            "labels": self.labels,
        }
