"""A folder for the runs of a test, and a model's configuration and file to log."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.config import params
from stages.config.models import ModelConfig
from stages.runtime import paths
from stages.runtime.files import file_hash
from stages.tracking import runs as tracked
from tests.conftest import SAMPLE, run, write_params

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
    assert run(tmp_path, "git", "init", "-q").returncode == 0
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
    values = YAML(typ="safe").load(SAMPLE / "params.yaml")
    return ModelConfig.model_validate(values["models"]["mnist_dense"])


def save_model(path: Path) -> Path:
    """Write a small model to `path`."""
    import keras

    keras.Sequential([keras.Input((4,), dtype="uint8"), keras.layers.Dense(2, activation="softmax")]).save(path)
    return path


def write_trained(name: str, epochs: int = 3) -> Path:
    """Write a trained and evaluated model as DVC leaves it in the working directory; return the model's file."""
    if not paths.PARAMS.exists():
        write_params(Path())
    values = YAML(typ="safe").load(paths.PARAMS)
    history, metrics, table = paths.history(name), paths.metrics(name), paths.plot("confusion", name)
    outs = [paths.model(name), history, paths.environment("train", name)]
    for path in (*outs, metrics, table):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_model(paths.model(name))
    rows = [",".join(map(str, (epoch, *ROW.values()))) for epoch in range(1, epochs + 1)]
    history.write_text("\n".join([",".join(("epoch", *ROW)), *rows]) + "\n", encoding="utf-8")
    outs[-1].write_text(json.dumps({"compute_dtype": "float32"}), encoding="utf-8")
    metrics.write_text(
        json.dumps({"accuracy": 0.75, "images": 20, "validation_accuracy": 0.25, "epochs": epochs}), encoding="utf-8"
    )
    table.write_text("actual,predicted\n", encoding="utf-8")
    given = {key: values[key] for key in ("threads", "seed", "train")} | {f"models.{name}": values["models"][name]}
    lock = YAML(typ="safe").load(paths.LOCK)
    records = {"path": f"data/records/{values['models'][name]['dataset']}", "md5": DIGEST}
    train = {"deps": [records], "params": {"params.yaml": given}, "outs": _entries(*outs)}
    lock["stages"] |= {
        f"train@{name}": train,
        f"evaluate@{name}": {"deps": _entries(history), "outs": _entries(metrics, table)},
    }
    YAML(typ="safe").dump(lock, paths.LOCK)
    return paths.model(name)


def facts() -> dict[str, object]:
    """The params of a training of mnist_dense beside the model's own, as `write_trained` has them."""
    return tracked.training_facts(params.load(), "mnist_dense", "float32")


def _entries(*files: Path) -> list[dict[str, str]]:
    return [{"path": path.as_posix(), "md5": file_hash(path, "md5")} for path in files]


def runs(uri: str = "") -> list[Any]:
    """All runs in MLflow, older first."""
    import mlflow

    from stages.tracking import server

    client = mlflow.MlflowClient(uri or server.uri())
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time"]))
