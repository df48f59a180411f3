"""Layers that compute faster, or more accurately, than those of Keras, which the saved model keeps.

This module imports TensorFlow at the top: import it late.
"""

import importlib
from typing import Any

import keras
import tensorflow as tf

KERNELS = ("bias", "batch_norm", "activation", "small_maps")  # modules of this folder; the first that applies is used


class Replacement(keras.layers.Layer):
    """A built layer, with its variables, that computes in another way, while it trains or always."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    @staticmethod
    def applies_to(layer: keras.layers.Layer) -> bool:
        """Whether the implementation computes what this layer does."""
        raise NotImplementedError

    def train(self, inputs: tf.Tensor) -> tf.Tensor:
        """Compute the layer in training."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        """The layer's own."""
        return self.layer.compute_output_shape(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Apply the layer."""
        return self.train(inputs) if training else self.layer(inputs)


def with_kernels(model: keras.Model) -> keras.Model:
    """Copy a model with the layers of this folder in place of Keras's; it shares the variables.

    Models inside the model are copied, too. A model without layers to replace is returned as it is.
    """
    kinds = [importlib.import_module(f"stages.kernels.{name}").Kernel for name in KERNELS]

    def replaced(layer: keras.layers.Layer) -> keras.layers.Layer:
        return next((kind(layer) for kind in kinds if kind.applies_to(layer)), layer)

    if not any(kind.applies_to(layer) for kind in kinds for layer in model._flatten_layers(include_self=False)):
        return model
    copy: keras.Model = keras.models.clone_model(model, clone_function=replaced, recursive=True)
    return copy
