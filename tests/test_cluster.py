"""The same bytes on a cluster: on Ray's own, of this machine, and on three nodes that are processes of it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from stages import params
from stages.sample import draw
from tests.conftest import ROOT, clone_of_work_tree, only, run

pytest.importorskip("ray", reason="needs requirements-cluster.txt: `make test-cluster`")

BIN = Path(sys.executable).parent


def set_engine(folder: Path, engine: str) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M))


def small(values: Any) -> None:
    """Pixels and JPEG files of different sizes, and a dozen batches for the backbone."""
    only(values, "mnist_dense", "imagenette_vgg16")
    values["datasets"]["imagenette"]["sample"] = {"train": 300, "test": 70}
    values["features"]["imagenette_vgg16"]["image_size"] = 96


def mlflow_runs(folder: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that the local engine has reproduced."""
    folder = clone_of_work_tree(tmp_path_factory.mktemp("local"), small)
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def by_ray(folder: Path, address: str, meanwhile: Callable[[Any], None] = lambda process: None) -> str:
    """`make cluster` in a new clone at `folder`; `meanwhile` is called with its process. What it has said."""
    clone_of_work_tree(folder, small)
    set_engine(folder, "ray")
    environment = {**os.environ, "RAY_ADDRESS": address, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    log = folder.with_suffix(".log")
    with log.open("w") as file:
        command = [sys.executable, "-m", "tools.cluster"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        meanwhile(process)
        assert process.wait() == 0, log.read_text()
    return log.read_text()


def same_as(local: Path, folder: Path) -> None:
    """DVC has recorded the same of both clones, nothing is stale, and each model is a run that ended well."""
    assert (folder / "dvc.lock").read_text() == (local / "dvc.lock").read_text()
    assert run(folder, "dvc", "status", "--quiet").returncode == 0
    assert [run.info.status for run in mlflow_runs(folder)] == ["FINISHED"] * len(mlflow_runs(local))


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes with a processor and 100 MB for objects each; `worker_nodes` are those without the stage."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(**node)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


def busy(node: Any) -> bool:
    """Whether a process of the pool works on this node; Ray tells it in the process's title."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in raylet.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::MapWorker") and ".submit" in title:
            return True
    return False


def test_ray_on_this_machine_changes_nothing(local: Path, tmp_path: Path) -> None:
    said = by_ray(tmp_path / "ray", address="")
    assert "epoch 1/1: loss" in said and "Traceback" not in said
    same_as(local, tmp_path / "ray")


def test_a_node_that_dies_during_extract_changes_nothing(local: Path, tmp_path: Path, cluster: Any) -> None:
    victim, _ = cluster.worker_nodes

    def kill(process: Any) -> None:
        while not busy(victim):
            assert process.poll() is None
            time.sleep(0.01)
        cluster.remove_node(victim, allow_graceful=False)

    said = by_ray(tmp_path / "ray", cluster.address, kill)
    assert said.index("Running stage 'extract@") < said.index("Running stage 'train@mnist_dense'")
    assert "Traceback" not in said
    same_as(local, tmp_path / "ray")


def test_a_damaged_archive_is_one_line_from_a_node(project: Path) -> None:
    folder = project / "data/raw/imagenette"
    draw("imagenette", params.load().datasets["imagenette"], folder)
    (archive,) = folder.iterdir()
    archive.write_bytes(archive.read_bytes()[:-5000])
    set_engine(project, "ray")
    done = run(project, sys.executable, "-m", "stages.preprocess", "imagenette", PYTHONPATH=str(ROOT), RAY_ADDRESS="")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: data/raw/imagenette/{archive.name}: ") and done.stderr.count("\n") == 1
    assert not (project / "data/records/imagenette").exists()


def test_damaged_weights_are_one_line_from_a_node(local: Path, project: Path) -> None:
    for path in ("data/raw/vgg16", "data/records/imagenette"):
        shutil.copytree(local / path, project / path)
    shutil.copy(local / "params.yaml", project)
    set_engine(project, "ray")
    (weights,) = (project / "data/raw/vgg16").iterdir()
    weights.unlink()  # read-only, as DVC leaves it
    weights.write_bytes(b"no weights")
    command = [sys.executable, "-m", "stages.extract", "imagenette_vgg16"]
    done = run(project, *command, PYTHONPATH=str(ROOT), RAY_ADDRESS="")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: data/raw/vgg16/{weights.name}: damaged") and done.stderr.count("\n") == 1


def test_what_is_read_waits_for_what_is_slow(tmp_path: Path, cluster: Any) -> None:
    """600 MB pass through three nodes that hold 300: half of that at most is on its way at any time."""
    code = """
import time
from pathlib import Path
from stages import cluster

def read():
    for number in range(60):
        with open("read", "a") as file:
            file.write(".")
        yield bytes([number]) * 10_000_000

numbers = []
with cluster.mapped(read, lambda data: data) as items:
    for data in items:
        if not numbers:
            time.sleep(5)
            print(Path("read").stat().st_size)
        numbers.append(data[0])
print(numbers == list(range(60)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    waiting, right = done.stdout.split()
    assert int(waiting) <= 15
    assert right == "True"
