"""Muon: momentum whose steps are orthogonal matrices (Jordan et al., 2024)."""

from typing import TYPE_CHECKING

from stages.config.types import Positive, Share
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # coefficients of the polynomial that moves all singular values towards 1


def build(
    learning_rate: float, *, momentum: Share, nesterov: bool, iterations: Positive, normalize_weights: bool = False
) -> "keras.optimizers.Optimizer":
    """Return Muon for kernels: a kernel is a matrix with a column for each output.

    In bfloat16 models the matrices are multiplied in bfloat16, otherwise in float32.

    Args:
        learning_rate: the learning rate until a schedule sets another.
        momentum: m ← momentum · m + gradient.
        nesterov: step by gradient + momentum · m instead of m.
        iterations: number of Newton-Schulz iterations, which make the step's matrix almost orthogonal.
        normalize_weights: before a step, scale each kernel to a norm of the root of its number of outputs.
    """
    import keras
    import tensorflow as tf

    def orthogonalize(matrix: "tf.Tensor") -> "tf.Tensor":
        a, b, c = COEFFICIENTS
        reduced = keras.config.dtype_policy().compute_dtype == "bfloat16"
        matrix /= tf.norm(matrix) + 1e-7
        matrix = tf.cast(matrix, tf.bfloat16 if reduced else tf.float32)
        rows, columns = matrix.shape
        for _ in range(iterations):
            square = tf.matmul(matrix, matrix, transpose_a=rows > columns, transpose_b=rows <= columns)
            factor = b * square + c * square @ square
            matrix = a * matrix + (matrix @ factor if rows > columns else factor @ matrix)
        return tf.cast(matrix, tf.float32)

    class Muon(keras.optimizers.SGD):
        """Keras's variables of SGD with the steps of Muon."""

        def build(self, variables: "list[keras.Variable]") -> None:
            for variable in variables:
                if len(variable.shape) < 2:
                    raise UserError(
                        f"params.yaml: optimizer muon: {variable.path} is not a kernel; name another optimizer for it "
                        "in groups"
                    )
            super().build(variables)

        def update_step(self, gradient: "tf.Tensor", variable: "tf.Variable", learning_rate: "tf.Tensor") -> None:
            velocity = self.momentums[self._get_variable_index(variable)] if self.momentums else None
            update = gradient = tf.cast(gradient, variable.dtype)
            if velocity is not None:
                factor = tf.cast(self.momentum, variable.dtype)
                self.assign(velocity, factor * velocity + gradient)
                update = gradient + factor * velocity if nesterov else tf.convert_to_tensor(velocity)
            outputs = variable.shape[-1]
            update = orthogonalize(tf.reshape(update, (-1, outputs)))
            update = tf.cast(learning_rate, variable.dtype) * tf.reshape(update, variable.shape)
            if normalize_weights:
                self.assign(variable, variable * (outputs**0.5 / tf.norm(variable)) - update)
            else:
                self.assign_sub(variable, update)

    return Muon(learning_rate, momentum=float(momentum), nesterov=nesterov)
