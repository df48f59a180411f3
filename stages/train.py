"""Train one model: write data/models/NAME.keras, data/predictions/NAME.parquet and reports/history/NAME.csv."""

import os
from collections.abc import Iterator
from typing import Any

from stages.config import params
from stages.config.messages import lookup
from stages.config.schema import Params
from stages.runtime import cli, paths
from stages.tracking import logger, runs
from stages.training import train_model as run


def train(name: str) -> None:
    """Train the model `name` of params.yaml, print each epoch and log it in MLflow."""
    values = params.load()
    model = lookup(values.resolved_models, name, "models")
    events = _events(name, values)
    info: run.TrainingInfo = next(events)
    print(f"{name}: {info.parameters:,} parameters, {info.images:,} training images, {info.compute_dtype}", flush=True)
    extra = runs.training_facts(values, info.compute_dtype)
    with logger.training(name, model, extra, str(info.checkpoint.resolve())) as run_logger:
        for epoch, row in events:
            print(
                f"epoch {epoch}/{model.epochs}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, "
                f"validation {row['val_accuracy']:.4f}",
                flush=True,
            )
            run_logger.log_epoch(epoch, row)
        run_logger.log_model(paths.model(name))
    info.checkpoint.unlink(missing_ok=True)  # only now: until then the training could still resume


def _events(name: str, values: Params) -> Iterator[Any]:
    """What `run.run` yields for the model: here or on a node of the cluster."""
    model, pretrained = values.resolved_models[name], values.pretrained_network(name)
    arguments = name, model, values.seed, values.train.validation_fraction, values.threads, values.memory, pretrained
    inputs, outputs = [paths.records(model.dataset), *([pretrained] if pretrained else [])], run.outputs(name)
    if values.engine == "ray" and os.environ.get("RAY_ADDRESS"):  # Ray on this machine alone would gain nothing
        from stages.cluster.remote import run_remotely

        all_gpus = model.distribution is not None
        return run_remotely(run.run, arguments, inputs, outputs, all_gpus, values.threads)
    return run.run(*arguments)


if __name__ == "__main__":
    cli.run(train, "model")
