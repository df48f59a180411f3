"""Augmentations: random changes of training examples, found by name in stages/training/augmentations.

Each module has `build(seed, *, options)`, which returns a callable Batch → Batch. The keyword-only arguments are its
options in params.yaml. The order of the entries in params.yaml is the order in which they are applied.

What is random comes from one of two places, so that a training has the same bytes when it is repeated or resumed:
variables, listed in the attribute `variables`, which checkpoints save; or stateless random numbers of `seed`,
`Batch.epoch` and `Batch.indices`, which need no state and do not depend on how a batch is split over devices.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.config.models import PartConfig
from stages.config.plugins import build_plugin

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Batch(NamedTuple):
    """Training examples, or the share of one device of them."""

    inputs: "tf.Tensor"  # (n, height, width, channels) float32 pixels from 0 to 255
    targets: "tf.Tensor"  # (n,) int32 labels, or (n, num_classes) float32 probabilities after mixing examples
    indices: "tf.Tensor"  # (n,) int64: the positions of the examples in the training data
    epoch: "tf.Tensor"  # () int64, from 0
    num_classes: int
    size: int  # examples of the batch on all devices


Augmentation = Callable[[Batch], Batch]


class LayerAugmentation:
    """A Keras layer as an augmentation; the state of its random numbers is in its variables."""

    def __init__(self, layer: "keras.layers.Layer") -> None:
        self._layer = layer
        self.variables = layer.variables

    def __call__(self, batch: Batch) -> Batch:
        return batch._replace(inputs=self._layer(batch.inputs, training=True))


def build_augmentations(parts: list[PartConfig], seed: int) -> list[Augmentation]:
    """The augmentations of a model's `augment`, in their order.

    Each has its own seed. With a common one they would draw the same numbers: every flipped image would be rotated in
    the same direction.
    """
    return [build_plugin("training.augmentations", part, seed + position) for position, part in enumerate(parts)]


def target_probabilities(batch: Batch) -> "tf.Tensor":
    """The targets of a batch as probabilities, (n, num_classes) float32, for augmentations that mix examples."""
    import tensorflow as tf

    return tf.one_hot(batch.targets, batch.num_classes) if batch.targets.shape.rank == 1 else batch.targets


def augment_images(
    augmentations: list[Augmentation], images: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Augment uint8 images outside a training, as example images for a person; uint8 again."""
    import tensorflow as tf

    batch = Batch(
        tf.cast(images, tf.float32),
        tf.cast(labels, tf.int32),
        tf.range(len(images), dtype=tf.int64),
        tf.constant(0, tf.int64),
        num_classes,
        len(images),
    )
    for augmentation in augmentations:
        batch = augmentation(batch)
    return np.clip(np.asarray(batch.inputs).round(), 0, 255).astype(np.uint8)
