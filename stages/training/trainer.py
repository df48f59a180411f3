"""What a training computes: one step on a batch, and many steps in one TensorFlow graph.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.config.models import ModelConfig
from stages.config.plugins import build_plugin
from stages.data.arrays import Rows, SplitArrays
from stages.kernels.replacement import with_kernels
from stages.prediction.eval_batch_size import eval_batch_size
from stages.runtime.errors import UserError
from stages.runtime.progress import progress
from stages.training import feed, progressive
from stages.training.augment import Batch, build_augmentations
from stages.training.loss import balanced_loss, build_loss
from stages.training.network import build_train_model
from stages.training.optimizer import build_optimizer, hyperparameter_setter
from stages.training.rates import learning_rates


class Trainer:
    """Everything that a training needs, built once from a model's configuration."""

    def __init__(self, model: keras.Model, config: ModelConfig, train: SplitArrays, seed: int) -> None:
        """Build augmentations, optimizer, schedule, averaging, and the networks that are trained.

        Args:
            model: uncompiled, built in the scope of its distribution strategy; it is trained in place.
            config: the resolved configuration.
            train: the training data.
            seed: seeds the augmentations.

        Raises:
            UserError: the devices cannot share a batch, or a part of the configuration does not fit the model.
        """
        self.model, self.config, self.train = model, config, train
        self.strategy, self.num_classes = model.distribute_strategy, model.output_shape[-1]
        self.images_per_epoch = _images_per_epoch(config, len(train), self.strategy.num_replicas_in_sync)
        self.steps_per_epoch = -(-self.images_per_epoch // config.batch_size)
        self.rates = learning_rates(config, self.steps_per_epoch)
        self.image_sizes = progressive.image_sizes(config, model.input_shape[1])
        with self.strategy.scope():
            self.augmentations = build_augmentations(config.augment, seed)
            self.optimizer = build_optimizer(config, model)
            self.set_hyperparameters = hyperparameter_setter(self.optimizer, self.rates)
            total = self.steps_per_epoch * config.epochs
            self.averaging: Any = None
            if config.averaging:
                self.averaging = build_plugin("training.averaging", config.averaging, model, total)
            self.eval_model = with_kernels(model)
            self.train_models = {size: build_train_model(model, size) for size in self.image_sizes}
        self.eval_loss = self.train_loss = build_loss(config.loss, self.num_classes)
        if config.class_weight:
            self.train_loss = balanced_loss(self.train_loss, train.labels, self.num_classes)
        self._graphs: dict[Any, Callable[..., tf.Tensor]] = {}

    def train_step(self, batch: Batch, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Train on a batch, or on one device's share of it.

        Returns:
            Of each example: its loss, (n,), and whether its class was predicted, (n,) bool; before the update.
        """
        batch = progressive.resize(batch, image_size)
        for augment in self.augmentations:
            batch = augment(batch)
        model = self.train_models[image_size]
        with tf.GradientTape() as tape:
            probabilities = model(batch.inputs, training=True)
            losses = self.train_loss(batch.targets, probabilities) + penalties(model)
            loss = self.optimizer.scale_loss(tf.reduce_sum(losses) / batch.size)
        gradients = tape.gradient(loss, model.trainable_variables)
        self.optimizer.apply(gradients, model.trainable_variables)
        if self.averaging:
            once_for_all_devices(lambda: self.averaging.update(self.optimizer.iterations))
        return losses, is_correct(batch.targets, probabilities)

    def eval_step(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Measure the model on a batch; returns as `train_step`."""
        probabilities = self.eval_model(batch.inputs, training=False)
        losses = self.eval_loss(batch.targets, probabilities) + penalties(self.eval_model)
        return losses, is_correct(batch.targets, probabilities)

    def train_epoch(self, epoch: int, order: np.ndarray, title: str) -> tuple[float, float]:
        """Train on every batch of an epoch.

        Args:
            epoch: counts from 0.
            order: indices of the training examples, (images_per_epoch,) int64.
            title: start of each line of progress.

        Returns:
            Loss and accuracy: means over the examples, each measured before the update of its step.
        """
        size, rates = self.image_sizes[epoch], self.rates[epoch]

        def steps(rows: Rows, batches: tf.Tensor, rates: tf.Tensor, epoch: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
            for number in tf.range(tf.shape(batches)[0]):
                self.set_hyperparameters(rates[number])
                sums += self._on_devices(
                    lambda batch: self.train_step(to_pixels(batch), size), rows, batches[number], number, epoch
                )
            return sums

        return self._run(steps, ("train", size), self.train, order, rates, self.config.batch_size, epoch, title)

    def evaluate(self, data: SplitArrays, title: str) -> tuple[float, float]:
        """Measure the model on all examples of a split: mean loss and accuracy."""

        def steps(rows: Rows, batches: tf.Tensor, rates: tf.Tensor, epoch: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
            for number in tf.range(tf.shape(batches)[0]):
                sums += self._on_devices(self.eval_step, rows, batches[number], number, epoch)
            return sums

        batch_size, order = eval_batch_size(self.model), np.arange(len(data))
        no_rates = np.zeros(-(-len(order) // batch_size), np.float32)
        return self._run(steps, "eval", data, order, no_rates, batch_size, 0, title)

    @property
    def variables(self) -> list[keras.Variable]:
        """What a checkpoint keeps: the state of the model, optimizer, augmentations and averaging."""
        found = [*self.model.variables, *self.optimizer.variables]
        for part in [*self.augmentations, self.averaging]:
            found += getattr(part, "variables", [])
        return found

    def synchronize(self) -> None:
        """Give variables that each device changes by itself, such as moving averages, the first device's values."""
        if self.strategy.num_replicas_in_sync > 1:
            for variable in self.model.non_trainable_variables:
                variable.assign(keras.ops.convert_to_numpy(variable))

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # saves a second of each training
    def _on_devices(
        self,
        step: Callable[[Batch], tuple[tf.Tensor, tf.Tensor]],
        rows: Rows,
        indices: tf.Tensor,
        number: tf.Tensor,
        epoch: tf.Tensor,
    ) -> tf.Tensor:
        """Run a step on each device's share of a batch: the sums of losses and of correct classes, (2,) float64."""

        def on_device() -> tuple[tf.Tensor, tf.Tensor]:
            context = tf.distribute.get_replica_context()
            own = slice(context.replica_id_in_sync_group, None, context.num_replicas_in_sync)
            positions = rows.positions[number][own]
            with tf.device("cpu"):
                inputs, labels = (tf.gather(values, positions) for values in (rows.inputs, rows.labels))
            losses, correct = step(Batch(inputs, labels, indices[own], epoch, self.num_classes, indices.shape[0]))
            return tf.reduce_sum(tf.cast(losses, tf.float64)), tf.reduce_sum(tf.cast(correct, tf.float64))

        return tf.stack([self.strategy.reduce("SUM", one, axis=None) for one in self.strategy.run(on_device)])

    def _run(
        self,
        steps: Callable[..., tf.Tensor],
        kind: Any,
        data: SplitArrays,
        order: np.ndarray,
        rates: np.ndarray,
        batch_size: int,
        epoch: int,
        title: str,
    ) -> tuple[float, float]:
        """Run `steps` on all batches, as a graph for each `kind` and batch size; return mean loss and accuracy."""
        sums = tf.zeros(2, tf.float64)
        chunks = feed.chunks(data, order, rates, batch_size)
        for chunk in progress(chunks, len(order), title, "images", size=lambda chunk: chunk.batches.size):
            key = kind, chunk.batches.shape[1]
            if key not in self._graphs:
                self._graphs[key] = _graph(steps, data, chunk.batches.shape[1], rates.shape[1:])
            number = tf.constant(epoch, tf.int64)
            sums = self._graphs[key](chunk.rows, tf.constant(chunk.batches), tf.constant(chunk.rates), number, sums)
            sums.numpy()  # wait for it
        loss, accuracy = (sums / len(order)).numpy().tolist()
        return loss, accuracy


def penalties(model: keras.Model) -> tf.Tensor:
    """The model's own losses, such as weight regularization: one number for all examples, float32."""
    return tf.add_n([tf.cast(tf.reduce_sum(penalty), tf.float32) for penalty in model.losses] or [tf.zeros(())])


def is_correct(targets: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Whether the most probable class is the label, or the target's largest class, (n,) bool."""
    labels = targets if targets.shape.rank == 1 else tf.argmax(targets, axis=1, output_type=tf.int32)
    return tf.argmax(probabilities, axis=1, output_type=labels.dtype) == labels


def once_for_all_devices(update: Callable[[], None]) -> None:
    """Call a function outside the devices' own code, where a variable is assigned on all of them."""
    tf.distribute.get_replica_context().merge_call(lambda strategy: update())


def to_pixels(batch: Batch) -> Batch:
    """The batch with pixels as float32, which augmentations and the training network take."""
    return batch._replace(inputs=tf.cast(batch.inputs, tf.float32)) if batch.inputs.dtype == tf.uint8 else batch


def _images_per_epoch(config: ModelConfig, images: int, devices: int) -> int:
    if config.batch_size % devices:
        raise UserError(
            f"params.yaml: batch_size {config.batch_size} is not a multiple of the {devices} devices that share it; "
            "change it, or set distribution to null"
        )
    images = images // devices * devices  # no device is without an image
    if config.drop_last and images > config.batch_size:
        images -= images % config.batch_size
    return images


def _graph(
    steps: Callable[..., tf.Tensor], data: SplitArrays, batch_size: int, rates: tuple[int, ...]
) -> Callable[..., tf.Tensor]:
    """`steps` as a graph for any number of batches of one size."""
    batches = tf.TensorSpec([None, batch_size], tf.int64)
    inputs = tf.TensorSpec([None, *data.inputs.shape[1:]], data.inputs.dtype)
    rows = Rows(inputs, tf.TensorSpec([None], tf.int32), batches)
    others = [([None, *rates], tf.float32), ([], tf.int64), ([2], tf.float64)]
    return tf.function(steps).get_concrete_function(rows, batches, *(tf.TensorSpec(*spec) for spec in others))
