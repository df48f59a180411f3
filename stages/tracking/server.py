"""Connects with MLflow: the server of MLFLOW_TRACKING_URI, or a database in the root of the clone."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from stages.runtime.errors import UserError, mask_urls

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(os.environ.get("DVC_ROOT", "."))  # of the clone: `dvc exp run --temp` runs stages in another folder
STORE = ROOT / "mlruns"
SYNC = "python -m tools.release.sync"
# Defaults for variables that the user has not set. MLflow itself would wait for a server for minutes.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def uri() -> str:
    """MLFLOW_TRACKING_URI, or the database in the root of the clone."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(ROOT / 'mlflow.db').resolve()}"


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


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of an experiment, which is created if it does not exist.

    Raises:
        UserError: it was deleted, and MLflow neither logs into it nor creates another of this name.
    """
    with FileLock(STORE / ".lock"):  # two trainings of one dataset may start at once
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # A database stores no files, so name a folder for them; a server has its own.
            location = (STORE / name).resolve().as_uri() if uri().startswith("sqlite:") else None
            return str(client.create_experiment(name, location))
    if experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UserError(f"the experiment {name!r} was deleted; `{restore}` brings it back")
    return str(experiment.experiment_id)


def failure(error: Exception) -> str:
    """The address of MLflow and the first line of its error, shortened."""
    message = next(iter(mask_urls(str(error)).strip().splitlines()), "")[:200]
    kind = "" if isinstance(error, UserError) else type(error).__name__
    return ": ".join(filter(None, [f"MLflow at {mask_urls(uri())}", kind, message]))


@contextmanager
def required() -> "Iterator[MlflowClient]":
    """A client for a command that needs MLflow; what fails in the block is a `UserError` with what to do about it."""
    try:
        yield connect()
    except Exception as error:
        advice = "" if isinstance(error, UserError) else "; start it, or correct MLFLOW_TRACKING_URI"
        raise UserError(failure(error) + advice) from None
