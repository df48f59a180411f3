"""Sends pending runs to MLflow, and connects other modules with it."""

import json
import logging
import os
import sys
import warnings
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from filelock import FileLock

from stages.runtime.errors import UserError, mask_urls
from stages.runtime.numerics import import_tensorflow
from stages.tracking import pending
from stages.tracking.pending import ROOT, STORE, PendingRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SYNC = "python -m tools.release.tracking sync"
# Defaults for variables that the user has not set. MLflow itself would wait for a server for minutes.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
BATCH = 1000  # metrics in a request: MLflow's limit


def flush(run: PendingRun | None = None, strict: bool = False) -> bool:
    """Send pending runs to MLflow and remove those that are complete. Sending a run twice changes nothing.

    Args:
        run: a run whose lock the caller holds; all runs that no other process holds without it.
        strict: raise an error instead of printing a warning.

    Returns:
        Whether MLflow accepted everything.

    Raises:
        UserError: MLflow did not accept something, and `strict` is true.
    """
    try:
        if run:
            _send(run)
        else:
            _send_all()
    except Exception as error:  # whatever it is, it must not stop a training
        message = f"{failure(error)}; unsent runs are kept"
        if strict:
            raise UserError(message) from None
        print(f"warning: {message}; `{SYNC}` sends them", flush=True)
        return False
    return True


def find_run(experiment: str, model_md5: str) -> str | None:
    """The id of the run that trained a model, or None; a `UserError` if MLflow does not answer."""
    try:
        run = _search(connect(), experiment, "model_md5", model_md5)
    except Exception as error:
        raise UserError(f"{failure(error)}; start it, or correct MLFLOW_TRACKING_URI") from None
    return str(run.info.run_id) if run else None


def uri() -> str:
    """MLFLOW_TRACKING_URI, or the database in the root of the clone."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(ROOT / 'mlflow.db').resolve()}"


def _send_all() -> None:
    """Send all pending runs that no other process holds; raise the first error after the last run."""
    failure: Exception | None = None
    for found in pending.read_all():
        with pending.claim(found) as run:
            try:
                if run:
                    if run.status == "RUNNING":
                        run.end("KILLED")  # otherwise a process would hold its lock
                    _send(run)
            except Exception as error:
                failure = failure or error
                connect()  # raises if MLflow does not answer: then the other runs need not wait for it, too
    if failure:
        raise failure


def _send(run: PendingRun) -> None:
    """Bring MLflow up to date with a pending run, and remove the run if it is complete."""
    client = connect()
    if run.checkpoint:
        _send_training(client, run)
    elif found := _search(client, run.experiment, "model_md5", run.model_md5):
        _log_metrics(client, found.info.run_id, run)
        for path, text in run.plots.items():
            client.log_text(found.info.run_id, text, path)
    elif any(other.checkpoint and other.model_md5 == run.model_md5 for other in pending.read_all()):
        return  # the training of the evaluated model comes first
    if run.is_complete:
        run.remove()


def _send_training(client: "MlflowClient", run: PendingRun) -> None:
    found = _search(client, run.experiment, "pending_run", run.id)
    run_id = found.info.run_id if found else _create(client, run)
    run.sent = run.sent if found else 0
    _log_metrics(client, run_id, run)
    if run.status == "FINISHED" and run.model_md5 and (found is None or "model_md5" not in found.data.tags):
        _log_model(run_id, run)
        client.set_tag(run_id, "model_md5", run.model_md5)
    if run.ended:
        client.set_terminated(run_id, run.status, run.ended)
    elif found and found.info.status != "RUNNING":
        client.update_run(run_id, "RUNNING")


def connect() -> "MlflowClient":
    """A client for MLflow; one process at a time creates the database."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri())
    STORE.mkdir(parents=True, exist_ok=True)
    with FileLock(STORE / ".lock"):
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    return client


def _search(client: "MlflowClient", experiment: str, tag: str, value: str | None) -> "Run | None":
    """The newest run of an experiment with this value of a tag."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    return next(iter(client.search_runs([found.experiment_id], f"tags.{tag} = '{value}'", max_results=1)), None)


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of an experiment, which is created if it does not exist."""
    with FileLock(STORE / ".lock"):  # two trainings of one dataset may start at once
        experiment = client.get_experiment_by_name(name)
        # A database stores no files, so name a folder for them; a server has its own.
        location = (STORE / name).resolve().as_uri() if uri().startswith("sqlite:") else None
        return str(experiment.experiment_id if experiment else client.create_experiment(name, location))


def _create(client: "MlflowClient", run: PendingRun) -> str:
    """Create a run with everything that is known before the first epoch; return its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    tags = {**run.tags, "pending_run": run.id}
    run_id = str(client.create_run(experiment_id(client, run.experiment), run.started, tags, run.name).info.run_id)
    client.log_batch(run_id, params=[Param(key, value) for key, value in run.params.items()])
    if run.dataset:
        source = json.dumps({"path": f"data/records/{run.dataset['name']}"})
        dataset = Dataset(source_type="dvc", source=source, **run.dataset)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    return run_id


def _log_metrics(client: "MlflowClient", run_id: str, run: PendingRun) -> None:
    from mlflow.entities import Metric

    while unsent := run.metrics[run.sent : run.sent + BATCH]:
        client.log_batch(run_id, [Metric(*logged) for logged in unsent])
        run.sent += len(unsent)


def _log_model(run_id: str, run: PendingRun) -> None:
    """Log the model in MLflow's Keras flavor, with signature and pinned requirements, which MLflow would guess."""
    if "tensorflow" not in sys.modules:  # its devices cannot be configured twice
        import_tensorflow(gpu=False)
    import keras
    import mlflow.keras
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = keras.models.load_model(run.model, compile=False, safe_mode=True)
    inputs, outputs = (
        Schema([TensorSpec(np.dtype(str(tensor.dtype)), (-1, *tensor.shape[1:]))])
        for tensor in (model.inputs[0], model.outputs[0])
    )
    installed = {package.name.replace("_", "-"): package.version for package in distributions()}
    needed = [name for name in ("tensorflow-cpu", "tensorflow", "keras", "numpy", "mlflow") if name in installed]
    with warnings.catch_warnings(), mlflow.start_run(run_id):
        warnings.simplefilter("ignore")
        mlflow.keras.log_model(
            model,
            name=run.name,
            signature=ModelSignature(inputs, outputs),
            pip_requirements=[f"{name}=={installed[name]}" for name in needed],
            tags={"model_md5": run.model_md5},
        )


def failure(error: Exception) -> str:
    """The address of MLflow and the first line of its error, shortened."""
    message = next(iter(mask_urls(str(error)).strip().splitlines()), "")[:200]
    return f"MLflow at {mask_urls(uri())}: {type(error).__name__}" + (f": {message}" if message else "")
