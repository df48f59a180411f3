"""The training loop: epochs, early stopping, the best epoch, and checkpoints.

This module imports TensorFlow at the top: import it late.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from stages.config.models import ModelConfig
from stages.data.arrays import SplitArrays
from stages.runtime.errors import UserError
from stages.training import checkpoint
from stages.training.checkpoint import TrainState
from stages.training.trainer import Trainer


def train_epochs(
    model: keras.Model,
    config: ModelConfig,
    train: SplitArrays,
    validation: SplitArrays | None,
    seed: int,
    checkpoint_path: Path | None = None,
    title: str = "training",
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train `model` in place.

    The order of the examples depends on the seed and the epoch alone, so an interrupted training can resume.

    Args:
        model: uncompiled, built in the scope of its distribution strategy.
        config: the resolved configuration.
        train: the training data, in memory or in a file.
        validation: the validation data, measured after each epoch; None: nothing is.
        seed: seeds shuffling and augmentation.
        checkpoint_path: where to resume from and save to; None: nowhere.
        title: start of each line of progress.

    Yields:
        The number of each epoch, from 1, and its row of the history: accuracy, loss, with validation data val_accuracy
        and val_loss, and learning_rate. A resumed training yields its earlier rows first.

    Raises:
        UserError: the loss is not finite, or the devices cannot share a batch.
    """
    trainer = Trainer(model, config, train, seed)
    state = checkpoint.restore(checkpoint_path, trainer.variables) if checkpoint_path else TrainState()
    yield from enumerate(state.rows, 1)
    if state.rows:
        print(f"resuming from epoch {len(state.rows)}, which an earlier run finished", flush=True)
    saved = time.monotonic()
    for epoch in range(len(state.rows), config.epochs):
        if config.patience and epoch - state.best_epoch > config.patience:
            break
        epoch_title = f"{title}: epoch {epoch + 1}/{config.epochs}"
        order = np.random.default_rng([seed, epoch]).permutation(len(train))[: trainer.images_per_epoch]
        loss, accuracy = trainer.train_epoch(epoch, order, epoch_title)
        if trainer.averaging and epoch + 1 == config.epochs:
            trainer.averaging.finish()
        trainer.synchronize()
        row = {"accuracy": accuracy, "loss": loss}
        if validation:
            val_loss, val_accuracy = trainer.evaluate(validation, f"{epoch_title}, validation")
            row |= {"val_accuracy": val_accuracy, "val_loss": val_loss}
        if not all(map(math.isfinite, row.values())):
            raise UserError(
                f"the loss is {loss}{f', {val_loss} in validation' if validation else ''}, in epoch {epoch + 1}; lower "
                "the learning rate in params.yaml"
            )
        rate = str(trainer.rates[epoch, -1, 0, 0])  # the shortest decimal number: 0.001, not 0.0010000000475
        row["learning_rate"] = float(rate)
        state.rows.append(row)
        if validation and val_loss < state.best_loss - config.min_improvement:
            state.best_loss, state.best_epoch = val_loss, epoch
            state.best_weights = model.get_weights() if config.restore_best else []
        if checkpoint_path and time.monotonic() - saved >= checkpoint.SECONDS_BETWEEN:
            checkpoint.save(checkpoint_path, trainer.variables, state)
            saved = time.monotonic()
        yield epoch + 1, row
    if config.restore_best:
        model.set_weights(state.best_weights)
