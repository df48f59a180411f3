"""Runs in MLflow: in a database, and on a real server on 127.0.0.1 that is killed, slow or absent."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stages.config import params
from stages.config.flatten import flatten
from stages.config.models import ModelConfig
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from stages.tracking import logger, server, sync
from tests.conftest import ROOT, commit, environment, run, write_params
from tests.tracking.conftest import DIGEST, ROW, facts, runs, write_trained
from tools.release import sync as sync_tool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@contextmanager
def process(*command: str, **changes: str) -> Iterator[Callable[[], None]]:
    """Run a command of MLflow in a session of its own; yields a function that kills it with its workers."""
    with open("server.log", "ab") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment() | changes)

    def kill() -> None:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()

    try:
        yield kill
    finally:
        kill()


@contextmanager
def mlflow_server(port: int) -> Iterator[Callable[[], None]]:
    store = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "server-files", "--workers", "1"]
    with process("mlflow", "ui", "--port", str(port), *store) as kill:
        wait_for(f"http://127.0.0.1:{port}/health")
        assert listening() == {("127.0.0.1", port)}
        yield kill


def listening() -> set[tuple[str, int]]:
    """The addresses on which the descendants of this process listen."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found += [one.laddr for one in process.net_connections("inet") if one.status == "LISTEN"]
    return {(address.ip, address.port) for address in found}


def test_training_and_evaluation_make_one_run_whose_model_can_be_served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: ModelConfig
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-fowl")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    model = write_trained("mnist_dense")
    with logger.training("mnist_dense", config, {"seed": 42}, "key") as log:
        for epoch in (1, 2):
            log.log_epoch(epoch, ROW)
        log.log_model(model)
    for _ in range(2):  # the second time there is nothing to do
        sync.log_evaluations(["mnist_dense"])

    (run,) = runs(f"sqlite:///{folder}/mlflow.db")
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "128" and run.data.params["units"] == "[100]"
    assert run.data.params["seed"] == "42"
    assert run.data.metrics == {**ROW, "test_accuracy": 0.75, "test_images": 20}
    tags = ["stage", "dvc_experiment", "dvc_baseline", "model_md5"]
    assert [run.data.tags[tag] for tag in tags] == ["train@mnist_dense", "tidy-fowl", "0" * 40, file_hash(model, "md5")]
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("mnist", DIGEST)
    import mlflow

    client = mlflow.MlflowClient()
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]
    assert client.get_experiment(run.info.experiment_id).name == "mnist"
    (plots,) = client.list_artifacts(run.info.run_id, "plots/confusion")
    assert plots.path.endswith("mnist_dense.csv")

    uri = f"models:/{run.outputs.model_outputs[0].model_id}"
    loaded = mlflow.pyfunc.load_model(uri)
    assert str(loaded.metadata.signature.inputs) == "[Tensor('uint8', (-1, 4))]"
    requirements = (
        (Path(mlflow.artifacts.download_artifacts(uri)) / "requirements.txt").read_text(encoding="utf-8").split()
    )
    assert all("==" in requirement for requirement in requirements)
    images = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    port = free_port()
    serve = ["mlflow", "models", "serve", "--model-uri", uri, "--env-manager", "local"]
    with process(*serve, "--port", str(port), MLFLOW_TRACKING_URI=server.uri()):
        wait_for(f"http://127.0.0.1:{port}/ping")
        assert listening() == {("127.0.0.1", port)}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": images.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            served = json.load(answer)["predictions"]
    np.testing.assert_allclose(served, loaded.predict(images), rtol=1e-6)


def test_server_killed_during_a_training_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    Path("mlflow.db").rename("server.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine: the server is slow, but answers
    monkeypatch.setattr(logger, "SECONDS_BETWEEN", 0.0)
    write_params(folder)
    config = params.load().resolved_models["mnist_dense"]
    with (
        mlflow_server(port) as kill,
        logger.training("mnist_dense", config, facts(), "key") as log,
    ):
        log.log_epoch(1, ROW)
        (run,) = runs()
        assert run.info.status == "RUNNING" and run.data.metrics["loss"] == 1.5
        kill()
        log.log_epoch(2, ROW)
        log.log_epoch(3, ROW)
        model = write_trained("mnist_dense", epochs=3)
        log.log_model(model)
    sync.log_evaluations(["mnist_dense"])
    said = capsys.readouterr().out
    assert said.count(f"warning: MLflow at http://127.0.0.1:{port}: ") == 2  # once for each stage
    assert "`python -m tools.release.sync` logs the training later" in said
    with pytest.raises(UserError, match=f"MLflow at http://127.0.0.1:{port}: .*; start it, or correct MLFLOW"):
        sync_tool.sync()

    with mlflow_server(port):
        for expected in ("logged mnist_dense", "logged nothing new"):
            sync_tool.sync()
            assert expected in capsys.readouterr().out
            (run,) = runs()
            assert run.info.status == "FINISHED"
            assert run.data.metrics == {**ROW, "test_accuracy": 0.75, "test_images": 20}
            assert run.data.tags["model_md5"] == file_hash(model, "md5")
            assert len(run.outputs.model_outputs) == 1
            import mlflow

            history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
            assert [metric.step for metric in history] == [1, 2, 3]


def test_run_that_mlflow_never_had_is_rebuilt_from_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MLflow was away, or DVC had the outputs from a remote; params.yaml has changed since."""
    model = write_trained("cifar10_small_cnn_augmented")
    epochs = params.load().resolved_models["cifar10_small_cnn_augmented"].epochs
    write_params(folder, lambda values: values["train"].update(epochs=7))
    write_trained("mnist_dense").unlink()
    sync_tool.sync()
    said = capsys.readouterr().out
    assert "logged cifar10_small_cnn_augmented\n" in said
    missing = "data/models/mnist_dense.keras: not that of dvc.lock; run `dvc checkout data/models/mnist_dense.keras` or"
    assert f"not logged: mnist_dense ({missing}" in said
    (run,) = runs()
    assert (run.info.status, run.data.tags["model_md5"]) == ("FINISHED", file_hash(model, "md5"))
    assert run.data.metrics == {**ROW, "test_accuracy": 0.75, "test_images": 20}
    assert run.data.params["epochs"] == str(epochs)
    assert [key for key in run.data.params if key.startswith("augment")] == list(
        flatten({"augment": params.load().models["cifar10_small_cnn_augmented"].model_dump()["augment"]})
    )


def test_deleted_experiment_stops_neither_a_training_nor_other_models(
    folder: Path, config: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    client = server.connect()
    deleted = client.create_experiment("mnist")
    client.delete_experiment(deleted)
    restore = f"the experiment 'mnist' was deleted; `mlflow experiments restore --experiment-id {deleted}` brings it"
    with logger.training("mnist_dense", config, {}, "key") as log:
        log.log_epoch(1, ROW)
    assert restore in capsys.readouterr().out
    for name in ("mnist_dense", "cifar10_cnn"):
        write_trained(name)
    with pytest.raises(UserError, match=f"not logged: mnist_dense: MLflow at .*: {re.escape(restore)}"):
        sync_tool.sync()
    assert [run.info.run_name for run in runs()] == ["cifar10_cnn"]


def test_server_that_does_not_answer_costs_a_training_one_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: ModelConfig
) -> None:
    write_params(folder)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(logger, "SECONDS_BETWEEN", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@{address}")
        start = time.monotonic()
        with logger.training("mnist_dense", config, {}, "key") as log:
            for epoch in range(1, 6):
                log.log_epoch(epoch, ROW)
        assert time.monotonic() - start < 10
        with pytest.raises(UserError, match=f"^MLflow at http://{address}: MlflowException: ") as caught:
            sync_tool.sync()
    said = capsys.readouterr().out
    assert said.count(f"warning: MLflow at http://{address}: ") == said.count("warning: ") == 1
    assert "hunter2" not in f"{said}{caught.value}"


def test_resumed_training_continues_its_run(folder: Path, config: ModelConfig) -> None:
    def start(epochs: list[int], error: type[BaseException]) -> None:
        with logger.training("mnist_dense", config, {}, "checkpoint") as log:
            Path("checkpoint").touch()
            for epoch in epochs:
                log.log_epoch(epoch, ROW)
            raise error

    with pytest.raises(KeyboardInterrupt):
        start([1], KeyboardInterrupt)
    assert [run.info.status for run in runs()] == ["KILLED"]
    with pytest.raises(ZeroDivisionError):
        start([1, 2], ZeroDivisionError)
    assert [run.info.status for run in runs()] == ["FAILED"]
    with logger.training("mnist_dense", config, {}, "checkpoint") as log:
        log.log_epoch(3, ROW)
        assert [run.info.status for run in runs()] == ["RUNNING"]
    with logger.training("mnist_dense", config, {}, "checkpoint"):
        pass  # the same training once more is another run
    first, second = runs()
    assert (first.info.status, second.info.status) == ("FINISHED", "FINISHED")
    assert len(first.data.metrics) == 5 and not second.data.metrics


def test_two_trainings_at_once_create_one_database(folder: Path) -> None:
    code = (
        "import sys; from stages.tracking import logger; from tests.tracking.conftest import model_config\n"
        "with logger.training(sys.argv[1], model_config(), {}, sys.argv[1]) as log:\n"
        "    for epoch in range(1, 4): log.log_epoch(epoch, {'loss': 1.0})\n"
    )
    (folder / "elsewhere").mkdir()
    (folder / "mlflow.db").unlink()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], cwd=cwd, env=environment, stdout=subprocess.PIPE, encoding="utf-8"
        )
        for name, cwd in (("one", folder), ("two", folder / "elsewhere"))
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == ["", ""]
    assert sorted((run.info.run_name, run.info.status) for run in runs()) == [("one", "FINISHED"), ("two", "FINISHED")]
    assert not (folder / "elsewhere/mlflow.db").exists()


def test_values_of_an_epoch_are_sent_once(folder: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "SECONDS_BETWEEN", 0)
    sent: list[int] = []
    client = type(server.connect())
    send = client.log_batch

    def log_batch(self: Any, run_id: str, metrics: Sequence[Any] = (), **options: Any) -> None:
        sent.extend(metric.step for metric in metrics)
        send(self, run_id, metrics, **options)

    monkeypatch.setattr(client, "log_batch", log_batch)
    with logger.training("mnist_dense", config, {}, "key") as log:
        for epoch in range(1, 6):
            log.log_epoch(epoch, ROW)
    assert sorted(sent) == sorted([*range(1, 6)] * len(ROW))


def test_training_without_git_has_no_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert "mlflow.source.git.commit" not in logger._tags()


def test_commit_is_the_projects_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without Git in another repository has no commit; neither has one that is not committed yet."""
    commit(folder, "outer")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(inner)
    assert "mlflow.source.git.commit" not in logger._tags()
    commit(folder, "with inner")
    assert logger._tags()["mlflow.source.git.commit"] == run(folder, "git", "rev-parse", "HEAD").stdout.strip()
