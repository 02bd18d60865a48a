"""Compute values and gradients of a loss as NumPy arrays, on any backend of Keras."""

import keras
import numpy as np
from keras import ops


def values_and_gradients(loss, logits):
    """Return the values (images,) of `loss(logits)`, and the gradient of their sum."""
    logits = np.asarray(logits)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(logits)
        with tf.GradientTape() as tape:
            values = loss(tf.convert_to_tensor(variable))
        gradients = tape.gradient(values, variable, unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        def total(y):
            values = loss(y)
            return ops.sum(values), values

        # compiled as a whole; otherwise JAX compiles each operation for each shape
        gradients, values = jax.jit(jax.grad(total, has_aux=True))(jax.numpy.asarray(logits))
    else:
        import torch

        variable = torch.tensor(logits, requires_grad=True)
        values = loss(variable)
        gradients = torch.zeros_like(variable)
        if values.requires_grad:
            (gradients,) = torch.autograd.grad(values.sum(), variable)
    return ops.convert_to_numpy(values), ops.convert_to_numpy(gradients)
