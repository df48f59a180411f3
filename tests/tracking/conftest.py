"""A folder for the runs of a test, and a model's configuration and file to log."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.config.models import ModelConfig
from tests.conftest import ROOT

DIGEST = "0123456789abcdef0123456789abcdef.dir"
LOCK = f"stages:\n  preprocess@mnist:\n    outs:\n    - {{path: data/records/mnist, md5: {DIGEST}}}\n"
ROW = {"accuracy": 0.5, "loss": 1.5, "val_accuracy": 0.25, "val_loss": 2.5, "learning_rate": 0.01}


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, which takes MLflow seconds to create."""
    import mlflow

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path) -> Path:
    """A working directory with a dvc.lock and MLflow's database; MLflow's patience is short."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(database, tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    """The configuration of a model."""
    return model_config()


@pytest.fixture
def model(folder: Path) -> Path:
    """A model file."""
    return save_model(folder / "trained.keras")


def model_config() -> ModelConfig:
    """The configuration of mnist_dense in params.yaml."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    return ModelConfig.model_validate(values["models"]["mnist_dense"])


def save_model(path: Path) -> Path:
    """Write a small model to `path`."""
    import keras

    keras.Sequential([keras.Input((4,), dtype="uint8"), keras.layers.Dense(2, activation="softmax")]).save(path)
    return path


def runs(uri: str = "") -> list[Any]:
    """All runs in MLflow, older first."""
    import mlflow

    from stages.tracking import server

    client = mlflow.MlflowClient(uri or server.uri())
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time"]))
