"""Speed up Keras on TensorFlow with a fused BatchNormalization and Adam that give the same numbers.

Stock Keras 3 on TensorFlow is slow in three places before and during the first steps of a network
such as DenseNet-121. This module replaces them:

1. `fit` builds the optimizer while it traces the step, and then traces it again: `build_optimizer`
   builds it beforehand.
2. Adam runs about twenty small operations per variable: ResourceApplyAdam does the same update in
   one.
3. BatchNormalization and its gradient compute moments, normalise and cast in separate operations:
   FusedBatchNormV3 does each in one.

Names, variables and their order are those of Keras, so weights files are exchangeable between fast
and stock networks. Other backends, and options that the fused operations lack, use Keras' code.
"""

import keras
import numpy as np
from keras import ops


class BatchNormalization(keras.layers.BatchNormalization):
    """Fused when training on 4-D channels-last images; all other cases, and inference, are Keras'.

    Every epsilon is fused: cuDNN refused values below 1e-5 up to version 7; TensorFlow needs 9.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._can_fuse(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        before = self.moving_variance.value
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else tf.ones(channels),
            offset=self.beta.value if self.center else tf.zeros(channels),
            mean=self.moving_mean.value,
            variance=before,
            epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum,
            is_training=True,
        )
        self.moving_mean.assign(mean)
        # The operation averages the unbiased variance; Keras the biased one, (n - 1) / n of it.
        share = channels / tf.cast(tf.size(inputs), tf.float32)  # 1 / n
        self.moving_variance.assign(variance - (variance - self.momentum * before) * share)
        return outputs

    def _can_fuse(self, inputs) -> bool:
        return (
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.dtype == self.compute_dtype
            and self.compute_dtype in ("float32", "bfloat16", "float16")
            and self.variable_dtype == "float32"
            and not self.renorm
            and not self.synchronized
        )


class Adam(keras.optimizers.Adam):
    """Keras' Adam with one operation per variable.

    AMSGrad, sparse gradients and weights other than float32 use Keras' code.
    """

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if not self.amsgrad:
            # Compute once per step, not per variable, and pass on as the learning rate: the only
            # argument that Keras passes to every replica.
            beta1, beta2 = np.float32(self.beta_1), np.float32(self.beta_2)
            step = ops.cast(self.iterations + 1, "float64")
            # In float64, because 1 - 0.999^t keeps only three digits in float32. With powers of 0
            # the operation applies no correction of its own.
            correction = ops.sqrt(1 - float(beta2) ** step) / (1 - float(beta1) ** step)
            fused = {
                "lr": ops.cast(ops.cast(learning_rate, "float64") * correction, "float32"),
                "beta1_power": ops.zeros((), "float32"),
                "beta2_power": ops.zeros((), "float32"),
                "beta1": ops.convert_to_tensor(beta1),
                "beta2": ops.convert_to_tensor(beta2),
                "epsilon": ops.convert_to_tensor(self.epsilon, "float32"),
            }
            learning_rate = (learning_rate, fused)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(learning_rate, tuple):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        plain, fused = learning_rate
        if isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
            super().update_step(gradient, variable, plain)
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            grad=tf.cast(gradient, tf.float32),
            **fused,
        )


if keras.backend.backend() != "tensorflow":
    BatchNormalization = keras.layers.BatchNormalization  # type: ignore[misc]
    Adam = keras.optimizers.Adam  # type: ignore[misc]


def use_fast_layers(model: keras.Model) -> None:
    """Replace the BatchNormalization layers of a model by fused ones, in place.

    Only the class of each layer changes. Names, weights and the graph stay, and nothing is built
    twice (cloning NASNetLarge takes as long as building it).
    """
    for layer in model.layers:
        if type(layer) is keras.layers.BatchNormalization:
            layer.__class__ = BatchNormalization


def build_optimizer(model: keras.Model) -> None:
    """Create the optimizer's variables after `compile`, so that `fit` traces its step only once."""
    model.optimizer.build(model.trainable_variables)
