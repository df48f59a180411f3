"""The run of a search, and the trainings that are nested under it."""

from pathlib import Path

import pytest

from stages.config.models import ModelConfig
from stages.tracking import logger, parent
from tests.tracking.conftest import ROW, runs


def test_trainings_are_nested_under_the_run_of_a_search(
    folder: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = parent.start("mnist", "search mnist_dense", None)
    assert run_id
    monkeypatch.setenv(parent.VARIABLE, run_id)
    with logger.training("mnist_dense", config, {}, str(folder / "checkpoint")) as run_logger:
        run_logger.log_epoch(1, ROW)
    parent.end(run_id, "KILLED", {"best.batch_size": 64}, {"validation_accuracy": 0.9})
    search, training = runs()
    assert training.data.tags["mlflow.parentRunId"] == search.info.run_id == run_id
    assert search.info.status == "KILLED"

    assert parent.start("mnist", "search mnist_dense", run_id) == run_id  # a search that resumes
    assert runs()[0].info.status == "RUNNING"
    parent.end(run_id, "FINISHED", {"best.batch_size": 32}, {"validation_accuracy": 0.95})
    (search, _) = runs()
    assert (search.info.status, search.data.metrics) == ("FINISHED", {"validation_accuracy": 0.95})
    assert search.data.tags["best.batch_size"] == "32"


def test_search_without_mlflow_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert parent.start("mnist", "search mnist_dense", None) is None
    assert capsys.readouterr().out.startswith("warning: MLflow at http://127.0.0.1:9: ")
