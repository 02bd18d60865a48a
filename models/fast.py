"""Fused BatchNormalization and Adam for Keras on TensorFlow: the same numbers in fewer operations.

Stock Keras 3 on TensorFlow spends most of DenseNet-121's time to the first step, and a good part
of every step, in three places, each mended here from outside:

1. `fit` builds the optimizer while it traces the step, and then traces it again: `build_optimizer`
   builds it beforehand.
2. Adam emits about twenty small operations a variable: ResourceApplyAdam does the same update in
   one.
3. BatchNormalization computes moments, normalises and casts in separate operations, and so does
   its gradient: FusedBatchNormV3 does each in one.

Names, variables and their order are Keras' own, so weights files move freely between fast and
stock networks. Every other backend, and every option that the fused operations lack, is left to
Keras.
"""

import keras
from keras import ops

TENSORFLOW = keras.backend.backend() == "tensorflow"
# The smallest epsilon that cuDNN accepts; TensorFlow would silently raise a smaller one to it.
SMALLEST_EPSILON = 1.001e-5


class BatchNormalization(keras.layers.BatchNormalization):
    """Training on 4-D channels-last images in one operation; all else, inference too, is Keras'."""

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._can_fuse(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        gamma = self.gamma if self.scale else ops.ones(channels)
        beta = self.beta if self.center else ops.zeros(channels)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation returns the unbiased variance; Keras averages the biased one.
        values = tf.cast(tf.size(inputs) // channels, tf.float32)
        variance *= (values - 1) / values
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return outputs

    def _can_fuse(self, inputs) -> bool:
        return (
            TENSORFLOW
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.epsilon >= SMALLEST_EPSILON
            and inputs.dtype == self.compute_dtype
            and self.compute_dtype in ("float32", "bfloat16", "float16")
            and self.variable_dtype == "float32"
            and not self.renorm
            and not self.synchronized
        )


class Adam(keras.optimizers.Adam):
    """Keras' Adam with one operation a variable; AMSGrad and sparse gradients are Keras' own."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if TENSORFLOW and not self.amsgrad:
            # Once a step, not once a variable; they travel with the learning rate because Keras
            # hands that, and nothing else, to every replica.
            step = ops.cast(self.iterations + 1, "float32")
            powers = ops.power(self.beta_1, step), ops.power(self.beta_2, step)
            learning_rate = (ops.cast(learning_rate, "float32"), *powers)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(learning_rate, tuple):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate[0])
            return
        index = self._get_variable_index(variable)
        rate, beta_1_power, beta_2_power = (tf.cast(x, variable.dtype) for x in learning_rate)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


def use_fast_layers(model: keras.Model) -> None:
    """Turn the BatchNormalization layers of a model into fused ones, in place.

    Only the class changes, whose `call` is the one difference: names, weights and the graph stay,
    and nothing is built twice (a clone of NASNetLarge takes as long as the network itself).
    """
    if not TENSORFLOW:
        return
    for layer in model.layers:
        if type(layer) is keras.layers.BatchNormalization:
            layer.__class__ = BatchNormalization


def build_optimizer(model: keras.Model) -> None:
    """After `compile`: create the optimizer's variables now, so that `fit` traces its step once."""
    model.optimizer.build(model.trainable_variables)
