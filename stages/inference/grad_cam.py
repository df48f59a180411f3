"""Grad-CAM (Selvaraju et al., 2017): which parts of an image speak for a class.

The maps of the last convolution are multiplied by the gradient of the class's logit and summed; what is negative is set
to zero. Grad-CAM itself takes the mean gradient of each map. That is the same for a network that averages its maps. For
one that flattens them, the mean says nothing of a position, and most heat maps would be empty; the gradient of each
position is exact there (HiResCAM: Draelos and Carin, 2020).

This module imports TensorFlow at the top: import it late.
"""

import keras
import numpy as np
import tensorflow as tf


class GradCam:
    """Heat maps of one model."""

    def __init__(self, model: keras.Model) -> None:
        """Prepare a model of this project.

        Args:
            model: a model that takes pixels or features.

        Raises:
            ValueError: the model has no feature maps: no convolution sees it as more than one position.
        """
        self._before, network = _innermost(model)
        maps = _last_maps(network)
        self._maps_are_inputs = maps is None
        if maps is None:
            # A head on features: its inputs are the maps
            of_features = model.inputs[0].dtype != "uint8" or any(_last_maps(one) is not None for one in self._before)
            if not of_features or len(network.inputs[0].shape) != 4:
                raise ValueError("it has no convolution")
        self._network = keras.Model(network.inputs, [maps, _logits(network)] if maps is not None else _logits(network))

    def __call__(self, inputs: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Explain classes of images.

        Args:
            inputs: what the model takes: uint8 pixels or float16 features, (images, …).
            labels: the class to explain in each image, (images,).
            size: height and width of the heat maps: those of the images.

        Returns:
            float32 (images, *size) in [0, 1]: the highest value of an image is 1, or 0 if nothing speaks for the class.
        """
        values = tf.convert_to_tensor(inputs)
        for model in self._before:
            values = model(values, training=False)
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = self._network(values, training=False)
            maps, logits = (values, outputs) if self._maps_are_inputs else outputs
            score = tf.reduce_sum(tf.gather(tf.cast(logits, tf.float32), labels, axis=1, batch_dims=1))
        gradients = tf.cast(tape.gradient(score, maps), tf.float32)
        heat = tf.nn.relu(tf.reduce_sum(gradients * tf.cast(maps, tf.float32), axis=-1, keepdims=True))
        heat = tf.image.resize(heat, size)[..., 0].numpy()
        highest = heat.max(axis=(1, 2), keepdims=True)
        return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)


def _innermost(model: keras.Model) -> tuple[list[keras.Model], keras.Model]:
    """The model inside the model that ends it, however deep, and the models that compute its inputs."""
    before: list[keras.Model] = []
    while True:
        operation, node, _ = model.outputs[0]._keras_history
        if not isinstance(operation, keras.Model):
            return before, keras.Model(model.inputs, model.outputs)  # a Sequential has no graph of its own
        before.append(keras.Model(model.inputs, operation._inbound_nodes[node].input_tensors[0]))
        model = operation


def _last_maps(model: keras.Model) -> keras.KerasTensor | None:
    """The last feature maps of a size that a convolution returns, after its normalization, activation or shortcut."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    nodes = _innermost(model)[1]._nodes_by_depth  # not the layers: a layer of a Sequential has outputs in other graphs
    found = [
        (node.operation, output)
        for depth in sorted(nodes, reverse=True)
        for node in nodes[depth]
        for output in node.outputs
        if len(output.shape) == 4 and output.shape[1] * output.shape[2] > 1
    ]
    sizes = [output.shape[1:3] for operation, output in found if isinstance(operation, convolutions)]
    return [output for _, output in found if output.shape[1:3] == sizes[-1]][-1] if sizes else None


def _logits(model: keras.Model) -> keras.KerasTensor:
    """What goes into the softmax at the end of a model: its outputs saturate, and their gradients vanish."""
    operation, node, _ = model.outputs[0]._keras_history
    (inputs,) = operation._inbound_nodes[node].input_tensors
    if isinstance(operation, keras.layers.Softmax):
        return inputs
    if isinstance(operation, keras.layers.Dense) and operation.activation is keras.activations.softmax:
        linear = keras.layers.Dense.from_config({**operation.get_config(), "activation": "linear"})
        outputs = linear(inputs)
        linear.set_weights(operation.get_weights())
        return outputs
    return model.outputs[0]
