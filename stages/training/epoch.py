"""An epoch as a TensorFlow graph over batches: no step returns to Python.

A step gathers the examples of its batch, pixels as bytes, from the whole split in memory, or from the part of a
streamed split that was read while the graph ran for the part before.

This module imports TensorFlow at the top: import it late.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import tensorflow as tf

from stages.data.arrays import Rows
from stages.data.stream import Split
from stages.runtime.progress import progress
from stages.training.augment import Batch
from stages.training.step import Step

SECONDS_PER_CALL = 1.0  # of the graph, about: progress is reported and Ctrl-C is noticed between two calls

# Step; title for the progress; epoch, from 0; indices of the examples; rates of each step → loss, accuracy
TrainEpoch = Callable[[Step, str, int, np.ndarray, np.ndarray], tuple[float, float]]
# Title for the progress → loss, accuracy
EvalEpoch = Callable[[str], tuple[float, float]]


def make_train_epoch(
    strategy: tf.distribute.Strategy,
    set_hyperparameters: Callable[[tf.Tensor], None],
    data: Split,
    num_classes: int,
    batch_size: int,
    after_step: Callable[[], None] = lambda: None,
) -> TrainEpoch:
    """Return a function that runs a training step on every batch of an epoch.

    On several devices each takes its share of every batch and their gradients are summed: the same training as on one
    device, except for rounding and batch normalization.

    Args:
        strategy: the devices.
        set_hyperparameters: gets the rates of a step before it.
        data: the training data.
        num_classes: number of classes.
        batch_size: examples in a step, on all devices. What is left over at the end of an epoch is a smaller step.
        after_step: called after each step, outside the devices' own code.

    Returns:
        A function that returns the mean over the examples, of each step before its update.
    """
    return _make_epoch(strategy, set_hyperparameters, after_step, _to_pixels, data, num_classes, batch_size)


def make_eval_epoch(
    strategy: tf.distribute.Strategy, eval_step: Step, data: Split, num_classes: int, batch_size: int
) -> EvalEpoch:
    """Return a function that runs `eval_step` on all examples. Other arguments as in `make_train_epoch`."""
    epoch = _make_epoch(strategy, lambda rates: None, lambda: None, tf.identity, data, num_classes, batch_size)
    indices = np.arange(len(data))
    return lambda title: epoch(eval_step, title, 0, indices, np.zeros(-(-len(indices) // batch_size), np.float32))


def _to_pixels(inputs: tf.Tensor) -> tf.Tensor:
    """What augmentations and the layers behind the model's own cast take."""
    return tf.cast(inputs, tf.float32) if inputs.dtype == tf.uint8 else inputs


def _make_epoch(
    strategy: tf.distribute.Strategy,
    set_hyperparameters: Callable[[tf.Tensor], None],
    after_step: Callable[[], None],
    convert: Callable[[tf.Tensor], tf.Tensor],
    data: Split,
    num_classes: int,
    batch_size: int,
) -> TrainEpoch:
    def step_on_device(step: Step, rows: Rows, indices: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        own = slice(context.replica_id_in_sync_group, None, context.num_replicas_in_sync)
        with tf.device("cpu"):
            inputs, labels = (tf.gather(values, rows.positions[own]) for values in (rows.inputs, rows.labels))
        losses, correct = step(Batch(convert(inputs), labels, indices[own], epoch, num_classes), indices.shape[0])
        return tf.reduce_sum(tf.cast(losses, tf.float64)), tf.reduce_sum(tf.cast(correct, tf.float64))

    def run_step(step: Step, rows: Rows, indices: tf.Tensor, rates: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        set_hyperparameters(rates)
        sums = strategy.run(step_on_device, (step, rows, indices, epoch))
        after_step()
        return tf.stack([strategy.reduce("SUM", one, axis=None) for one in sums])

    @cache
    def graph(step: Step, size: int, rates_shape: tuple[int, ...]) -> Callable[..., tf.Tensor]:
        """`step` on any number of batches of one size."""

        def run_steps(rows: Rows, batches: tf.Tensor, rates: tf.Tensor, epoch: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
            for number in tf.range(tf.shape(batches)[0]):
                of_batch = rows._replace(positions=rows.positions[number])
                sums += run_step(step, of_batch, batches[number], rates[number], epoch)
            return sums

        batches = tf.TensorSpec([None, size], tf.int64)
        inputs, labels = (
            tf.TensorSpec([None, *data.inputs.shape[1:]], data.inputs.dtype),
            tf.TensorSpec([None], tf.int32),
        )
        specs = [([None, *rates_shape], tf.float32), ([], tf.int64), ([2], tf.float64)]
        return tf.function(run_steps).get_concrete_function(
            Rows(inputs, labels, batches), batches, *(tf.TensorSpec(*spec) for spec in specs)
        )

    def run_epoch(step: Step, title: str, epoch: int, indices: np.ndarray, rates: np.ndarray) -> tuple[float, float]:
        sums = tf.zeros(2, tf.float64)
        calls = _calls(data, indices, rates, batch_size)
        for rows, batches, batch_rates in progress(
            calls, len(indices), title, "images", size=lambda call: call[1].size
        ):
            sums = graph(step, batches.shape[1], rates.shape[1:])(
                rows, *map(tf.constant, (batches, batch_rates)), tf.constant(epoch, tf.int64), sums
            )
            sums.numpy()  # wait for it
        loss, accuracy = (sums / len(indices)).numpy().tolist()
        return loss, accuracy

    return run_epoch


def _calls(
    data: Split, indices: np.ndarray, rates: np.ndarray, batch_size: int
) -> Iterator[tuple[Rows, np.ndarray, np.ndarray]]:
    """Rows, batches and rates for each call of the graph: as many steps as take about `SECONDS_PER_CALL`.

    The rows of a call are read while the graph runs for the call before.
    """
    whole = len(indices) // batch_size
    most = max(1, data.rows_at_once // batch_size)
    count = 1

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        while start < whole:
            stop = min(start + count, whole)
            yield indices[start * batch_size : stop * batch_size].reshape(-1, batch_size), rates[start:stop]
            start = stop
        if rest := len(indices) - whole * batch_size:
            yield indices[-rest:].reshape(1, rest), rates[whole:]

    def read(part: tuple[np.ndarray, np.ndarray]) -> tuple[Rows, np.ndarray, np.ndarray]:
        return data.rows(part[0]), *part

    with ThreadPoolExecutor(1) as pool:
        following = parts()
        pending = [pool.submit(read, part) for part in itertools.islice(following, 1)]
        while pending:
            call = pending.pop().result()
            pending = [pool.submit(read, part) for part in itertools.islice(following, 1)]
            began = time.monotonic()
            yield call
            if time.monotonic() - began < SECONDS_PER_CALL:
                count = min(2 * count, most)
