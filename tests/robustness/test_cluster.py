"""Ray computes the same bytes: on three nodes, which are processes of this machine."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from tests.conftest import ROOT, clone_of_work_tree, environment, only, run
from tools.lib import lock_entries

pytest.importorskip("ray", reason="needs requirements-cluster.txt: `make test-cluster`")

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def set_engine(folder: Path, engine: str) -> None:
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(
        re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M), encoding="utf-8"
    )


def small(values: Any) -> None:
    """Pixels and JPEG files of different sizes, and a dozen batches for the backbone."""
    only(values, "mnist_dense", "imagenette_vgg16")
    values["datasets"]["imagenette"]["synthetic"] = {"train": 300, "test": 70}
    values["features"]["imagenette_vgg16"]["image_size"] = 96


def mlflow_runs(folder: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone reproduced without Ray."""
    folder = clone_of_work_tree(tmp_path_factory.mktemp("local"), small)
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def reproduce_with_ray(folder: Path, address: str, meanwhile: Callable[[Any], None]) -> str:
    """Run `make repro` with Ray in a new clone at `folder` and return its output; call `meanwhile` with its process."""
    clone_of_work_tree(folder, small)
    set_engine(folder, "ray")
    log = folder.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "tools.run.repro", "32", ""]
        variables = environment() | {"RAY_ADDRESS": address}
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=file, stderr=subprocess.STDOUT)
        meanwhile(process)
        assert process.wait() == 0, log.read_text(encoding="utf-8")
    return log.read_text(encoding="utf-8")


def assert_same(local: Path, folder: Path) -> None:
    """Both clones have the same dvc.lock, nothing is stale, and each model has a finished run in MLflow."""
    found, expected = (
        lock_entries.split((clone / "dvc.lock").read_text(encoding="utf-8"))[1] for clone in (folder, local)
    )
    del found["check"], expected["check"]  # which reads the name of the engine
    assert found == expected
    assert run(folder, "dvc", "status", "--quiet").returncode == 0
    assert [run.info.status for run in mlflow_runs(folder)] == ["FINISHED"] * len(mlflow_runs(local))


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with a processor, and one without, where the stages run; 100 MB for objects each."""
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": 100_000_000}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(**node, num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


def busy_node(cluster: Any, process: Any) -> Any:
    """Wait for one of `worker_nodes` on which a process runs a task. Which one comes first depends on the load."""
    while True:
        for node in cluster.worker_nodes:
            if any(title.startswith("ray::_run") for title in titles(node)):
                return node
        assert process.poll() is None
        time.sleep(0.01)


def titles(node: Any) -> Iterator[str]:
    """The titles that Ray gives the processes of a node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in raylet.children(recursive=True):
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


def test_node_lost_during_a_training_changes_no_bytes(local: Path, tmp_path: Path, cluster: Any) -> None:
    def kill(process: Any) -> None:
        cluster.remove_node(busy_node(cluster, process), allow_graceful=False)

    output = reproduce_with_ray(tmp_path / "ray", cluster.address, kill)
    assert "epoch 1/1: loss" in output and "Traceback" not in output
    assert_same(local, tmp_path / "ray")


def test_training_without_records_on_a_node_is_one_line(project: Path, cluster: Any) -> None:
    set_engine(project, "ray")
    command = [sys.executable, "-m", "stages.train", "mnist_dense"]
    done = run(project, *command, PYTHONPATH=str(ROOT), RAY_ADDRESS=cluster.address)
    assert done.returncode == 1
    assert done.stderr.startswith("error: data/records/mnist: no records; ") and done.stderr.count("\n") == 1
    assert not (project / "data").exists()


def test_cluster_with_a_token_is_used_with_it_and_refuses_others_in_one_line(project: Path, tmp_path: Path) -> None:
    """As after `ray get-auth-token --generate`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    for name in ("own", "other", "none"):
        (tmp_path / name).mkdir()
    for name in ("own", "other"):
        (tmp_path / name / ".ray").mkdir()
        (tmp_path / name / ".ray/auth_token").write_text(uuid.uuid4().hex * 2, encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    set_engine(project, "ray")

    def train(home: str, **mode: str) -> str:
        command = [sys.executable, "-m", "stages.train", "mnist_dense"]
        given = {**environment, "HOME": str(tmp_path / home), "RAY_ADDRESS": address, **mode}
        done = subprocess.run(command, env=given, encoding="utf-8", capture_output=True)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        return done.stderr

    options = ["--num-cpus=1", "--object-store-memory=100000000", "--include-dashboard=false"]
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--port={address.rpartition(':')[2]}", *options]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # the name of a socket is short
        node = subprocess.Popen(
            [*command, f"--temp-dir={folder}"],
            env={**environment, "HOME": str(tmp_path / "own")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        try:
            assert node.stdout is not None
            assert any("Ray runtime started" in line for line in node.stdout)
            assert train("own").endswith("token authentication is enabled, set RAY_AUTH_MODE=token\n")
            ran = train("own", RAY_AUTH_MODE="token")
            assert ran.startswith("error: data/records/mnist: no records; ")  # it ran on the cluster
            for home in ("other", "none"):
                assert train(home, RAY_AUTH_MODE="token").startswith(f"error: RAY_ADDRESS: {address}: ")
        finally:
            node.terminate()
            node.wait()
