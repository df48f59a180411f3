"""Reads and writes the runs of trainings: each has the MD5 of its model as a tag, which connects it with DVC."""

import json
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from stages.config.flatten import flatten
from stages.config.models import ModelConfig
from stages.config.schema import Params
from stages.runtime.files import file_hash
from stages.runtime.numerics import import_tensorflow
from stages.tracking.server import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BATCH = 1000  # metrics in a request: MLflow's limit
Rows = Iterable[tuple[int, Mapping[str, float]]]  # number of an epoch, from 1, and its row of the history


def find(client: "MlflowClient", condition: str) -> "Run | None":
    """The newest run that meets a condition in MLflow's filter syntax."""
    ids = [found.experiment_id for found in client.search_experiments()]
    return next(iter(client.search_runs(ids, condition, max_results=1)), None) if ids else None


def trained_by(client: "MlflowClient", model_md5: str) -> "Run | None":
    """The run that trained a model file."""
    return find(client, f"tags.model_md5 = '{model_md5}'")


def params(model: ModelConfig, extra: Mapping[str, object]) -> dict[str, str]:
    """What is logged as the params of a run: the resolved configuration and facts of a training, as text."""
    return {key: str(value) for key, value in flatten({**model.model_dump(), **extra}).items()}


def training_facts(values: Params, name: str, compute_dtype: str) -> dict[str, object]:
    """Params of the run of a model beside its own."""
    return {
        "seed": values.seed,
        "validation_fraction": values.train.validation_fraction,
        "threads": values.threads,
        "kernels": values.model_kernels(name),
        "resolved_compute_dtype": compute_dtype,
    }


def create(
    client: "MlflowClient", name: str, dataset: str, digest: str, given: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    """Create a run with everything that is known before the first epoch; return its id.

    Args:
        client: a client of MLflow.
        name: the model.
        dataset: the dataset that it is trained on, and the name of the experiment.
        digest: DVC's hash of the records; may be empty.
        given: params of the run.
        tags: more tags beside the stage.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    stage = f"train@{name}"
    all_tags = {"stage": stage, "mlflow.source.name": stage, **tags}
    run_id = str(client.create_run(experiment_id(client, dataset), tags=all_tags, run_name=name).info.run_id)
    client.log_batch(run_id, params=[Param(key, value) for key, value in given.items()])
    if digest:
        source = json.dumps({"path": f"data/records/{dataset}"})
        records = Dataset(name=dataset, digest=digest, source_type="dvc", source=source)
        client.log_inputs(run_id, [DatasetInput(records, [InputTag("mlflow.data.context", "training")])])
    return run_id


def last_epoch(client: "MlflowClient", run_id: str) -> int:
    """The number of the last epoch that was logged; 0 without any."""
    return max((metric.step for metric in client.get_metric_history(run_id, "loss")), default=0)


def log_epochs(client: "MlflowClient", run_id: str, rows: Rows) -> None:
    """Log rows of the history."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    metrics = [Metric(key, float(value), now, epoch) for epoch, row in rows for key, value in row.items()]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics[first : first + BATCH])


def log_model(client: "MlflowClient", run_id: str, name: str, path: Path) -> None:
    """Log a model in MLflow's Keras flavor, with signature and pinned requirements, which it would guess.

    Args:
        client: a client of MLflow.
        run_id: the run of the training.
        name: the model.
        path: the model file.
    """
    if "tensorflow" not in sys.modules:  # its devices cannot be configured twice
        import_tensorflow(gpu=False)
    import keras
    import mlflow.keras
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model_md5 = file_hash(path, "md5")
    model = keras.models.load_model(path, compile=False, safe_mode=True)
    inputs, outputs = (
        Schema([TensorSpec(np.dtype(str(tensor.dtype)), (-1, *tensor.shape[1:]))])
        for tensor in (model.inputs[0], model.outputs[0])
    )
    requirements = []
    for package in ("tensorflow-cpu", "tensorflow", "keras", "numpy", "mlflow"):
        with suppress(PackageNotFoundError):  # one of the two TensorFlows
            requirements.append(f"{package}=={version(package)}")
    with warnings.catch_warnings(), mlflow.start_run(run_id):
        warnings.simplefilter("ignore")
        mlflow.keras.log_model(
            model,
            name=name,
            signature=ModelSignature(inputs, outputs),
            pip_requirements=requirements,
            tags={"model_md5": model_md5},
        )
    client.set_tag(run_id, "model_md5", model_md5)  # last: a run with it is complete
