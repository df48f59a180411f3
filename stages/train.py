"""Train one model: write data/models/NAME.keras, data/predictions/NAME.parquet and reports/history/NAME.csv."""

import os
from collections.abc import Iterator
from typing import Any

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import cli, paths
from stages.tracking import logger, runs
from stages.training.train_model import Training, TrainingInfo, run


def train(name: str) -> None:
    """Train the model `name` of params.yaml, print each epoch and log it in MLflow."""
    values = params.load()
    model = lookup(values.resolved_models, name, "models")
    training = Training.of(name, values)
    events = _run(training, values.memory, values.engine == "ray")
    info: TrainingInfo = next(events)
    print(f"{name}: {info.parameters:,} parameters, {info.images:,} training images, {info.compute_dtype}", flush=True)
    extra = runs.training_facts(values, name, info.compute_dtype)
    with logger.training(name, model, extra, info.checkpoint.stem) as run_logger:
        for epoch, row in events:
            said = f"epoch {epoch}/{model.epochs}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}"
            if "val_loss" in row:
                said += f", validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
            print(said, flush=True)
            run_logger.log_epoch(epoch, row)
        run_logger.log_model(paths.model(name))
    info.checkpoint.unlink(missing_ok=True)  # only now: until then the training could still resume


def _run(training: Training, memory: float, ray: bool) -> Iterator[Any]:
    """Run the training here or, with Ray, on a node of the cluster."""
    if ray and os.environ.get("RAY_ADDRESS"):  # Ray on this machine alone would gain nothing
        from stages.cluster.remote import run_remotely

        all_gpus = training.model.distribution is not None
        arguments = training, memory
        return run_remotely(run, arguments, training.inputs, training.outputs, all_gpus, training.threads)
    return run(training, memory)


if __name__ == "__main__":
    cli.run(train, "model")
