"""Compute Grad-CAM (Selvaraju et al. 2017): the image regions that raise a label's logit.

    α_k = mean over positions of ∂ logit_c / ∂ A_k        M_c = ReLU(Σ_k α_k A_k)

A are the feature maps of one layer, and M_c is one map per label. The network must be flat: layers
of a nested network cannot be found, and gradients cannot reach them.
"""

from collections.abc import Sequence

import numpy as np

from models import ModelError


def heatmaps(
    model, images: np.ndarray, labels: Sequence[int], layer: str = "features"
) -> np.ndarray:
    """Return maps (images, labels, h, w), float32 and at least 0, on the grid of the layer.

    `images` are the network's input; `labels` are columns of its logits.
    """
    import keras

    names = [each.name for each in model.layers]
    if layer not in names:
        raise ModelError(
            f"{model.name} has no layer {layer!r} for Grad-CAM; its last layers are "
            f"{', '.join(names[-5:])}."
        )
    features = model.get_layer(layer).output
    below = keras.Model(model.inputs, features)
    # from the maps to the logits; the image stays an input for streams that bypass the maps
    above = keras.Model([features, *model.inputs], model.outputs[0])
    images = keras.ops.convert_to_tensor(images, "float32")
    maps = below(images, training=False)  # (images, h, w, channels)
    gradients = _gradients(lambda maps: above([maps, images], training=False), maps, labels)
    weights = gradients.mean(axis=(2, 3))  # (labels, images, channels)
    maps = keras.ops.convert_to_numpy(maps).astype(np.float32)
    return np.maximum(np.einsum("lnc,nhwc->nlhw", weights, maps), 0)


def _gradients(logits, maps, labels: Sequence[int]) -> np.ndarray:
    """Return each label's gradients, (labels, images, h, w, channels); images are independent."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape(persistent=True) as tape:
                tape.watch(maps)
                summed = [tf.reduce_sum(column) for column in tf.unstack(logits(maps), axis=1)]
            gradients = [tape.gradient(summed[label], maps) for label in labels]
        case "jax":
            import jax

            @jax.jit  # otherwise each operation is compiled separately
            def gradient_of_label(maps, label):
                return jax.grad(lambda maps: logits(maps)[:, label].sum())(maps)

            gradients = [gradient_of_label(maps, label) for label in labels]
        case "torch":
            import torch

            with torch.enable_grad():
                maps = maps.detach().requires_grad_()
                summed = logits(maps).sum(dim=0)
                gradients = [
                    torch.autograd.grad(summed[label], maps, retain_graph=True)[0]
                    for label in labels
                ]
        case backend:
            raise ModelError(
                f"Grad-CAM needs gradients, which {backend} lacks: set KERAS_BACKEND=tensorflow."
            )
    return np.stack([keras.ops.convert_to_numpy(each) for each in gradients]).astype(np.float32)
