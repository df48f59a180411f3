"""The training loop: epochs, early stopping, the best epoch, and checkpoints."""

import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.config.models import ModelConfig
from stages.data.stream import Split
from stages.prediction.eval_batch_size import eval_batch_size
from stages.runtime.errors import UserError
from stages.training import checkpoint
from stages.training.augment import build_augmentations
from stages.training.build import (
    build_averaging,
    build_loss,
    build_optimizer,
    build_schedule,
    build_train_model,
    weight_classes,
)
from stages.training.checkpoint import TrainState

if TYPE_CHECKING:
    import keras


def train_epochs(
    model: "keras.Model",
    config: ModelConfig,
    train: Split,
    validation: Split,
    seed: int,
    checkpoint_path: Path | None = None,
    title: str = "training",
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train `model` in place.

    The order of the examples depends on the seed and the epoch alone, so an interrupted training can resume.

    Args:
        model: uncompiled, built in the scope of its distribution strategy.
        config: the resolved configuration.
        train: the training data, in memory or streamed.
        validation: measured after each epoch.
        seed: of the order and the augmentations.
        checkpoint_path: where to resume from and save to; None: nowhere.
        title: start of each line of progress.

    Yields:
        The number of each epoch, from 1, and its row of the history: accuracy, loss, val_accuracy, val_loss and
        learning_rate. A resumed training yields its earlier rows first.

    Raises:
        UserError: the loss is not finite, or the devices cannot share a batch.
    """
    from stages.training import progressive
    from stages.training.devices import make_copy_from_first_device
    from stages.training.epoch import make_eval_epoch, make_train_epoch
    from stages.training.groups import make_hyperparameter_setter
    from stages.training.step import Step, make_eval_step, make_train_step

    strategy, num_classes = model.distribute_strategy, model.output_shape[-1]
    devices = strategy.num_replicas_in_sync
    if config.batch_size % devices:
        raise UserError(
            f"params.yaml: batch_size {config.batch_size} is not a multiple of the {devices} devices that share it; "
            "change it, or set distribution to null"
        )
    num_images = len(train) // devices * devices  # of each epoch: no device is without an image
    if config.drop_last and num_images > config.batch_size:
        num_images -= num_images % config.batch_size
    steps = -(-num_images // config.batch_size)
    rates = build_schedule(config, steps)
    train_loss = loss_fn = build_loss(config)
    if config.class_weight:
        train_loss = weight_classes(loss_fn, train.labels, num_classes)
    full_size = model.input_shape[1]
    image_sizes = progressive.image_sizes(config, full_size)

    def train_step(size: int) -> Step:
        resized = [] if size == full_size else [progressive.resize(size)]
        return make_train_step(build_train_model(model, size), [*resized, *augmentations], train_loss, optimizer)

    with strategy.scope():
        augmentations = build_augmentations(config.augment, seed)
        optimizer = build_optimizer(config, model)
        set_hyperparameters = make_hyperparameter_setter(optimizer, rates)
        averaging = build_averaging(config, model, steps * config.epochs)
        train_steps = {size: train_step(size) for size in dict.fromkeys(image_sizes)}
    after_step = partial(averaging.update, optimizer.iterations) if averaging else lambda: None
    train_epoch = make_train_epoch(strategy, set_hyperparameters, train, num_classes, config.batch_size, after_step)
    eval_step = make_eval_step(model, loss_fn)
    eval_epoch = make_eval_epoch(strategy, eval_step, validation, num_classes, eval_batch_size(model))
    # Each has moving averages of its own: the first device's are used and saved
    copy_from_first_device = make_copy_from_first_device(strategy, model.non_trainable_variables)

    variables = [*model.variables, *optimizer.variables]
    for part in [*augmentations, averaging]:
        variables += getattr(part, "variables", [])
    state = checkpoint.restore(checkpoint_path, variables) if checkpoint_path else TrainState()
    yield from enumerate(state.rows, 1)
    if state.rows:
        print(f"resuming from epoch {len(state.rows)}, which an earlier run finished", flush=True)
    saved = time.monotonic()
    for epoch in range(len(state.rows), config.epochs):
        if config.patience and epoch - state.best_epoch > config.patience:
            break
        epoch_title = f"{title}: epoch {epoch + 1}/{config.epochs}"
        indices = np.random.default_rng([seed, epoch]).permutation(len(train))[:num_images]
        loss, accuracy = train_epoch(train_steps[image_sizes[epoch]], epoch_title, epoch, indices, rates[epoch])
        if averaging and epoch + 1 == config.epochs:
            averaging.finish()
        copy_from_first_device()
        val_loss, val_accuracy = eval_epoch(f"{epoch_title}, validation")
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            raise UserError(
                f"the loss is {loss}, {val_loss} in validation, in epoch {epoch + 1}; lower the learning rate in "
                "params.yaml"
            )
        rate = str(rates[epoch, -1, 0, 0])  # the shortest decimal number: 0.001, not 0.0010000000475
        row = {
            "accuracy": accuracy,
            "loss": loss,
            "val_accuracy": val_accuracy,
            "val_loss": val_loss,
            "learning_rate": float(rate),
        }
        state.rows.append(row)
        if val_loss < state.best_loss:
            state.best_loss, state.best_epoch = val_loss, epoch
            state.best_weights = model.get_weights() if config.restore_best else []
        if checkpoint_path and time.monotonic() - saved >= checkpoint.SECONDS_BETWEEN:
            checkpoint.save(checkpoint_path, variables, state)
            saved = time.monotonic()
        yield epoch + 1, row
    if config.restore_best:
        model.set_weights(state.best_weights)
