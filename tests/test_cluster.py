"""The same bytes on a cluster: on Ray's own, of this machine, and on three nodes that are processes of it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from stages import params
from stages.sample import draw
from tests.conftest import ROOT, clone_of_work_tree, only, run, write_params

pytest.importorskip("ray", reason="needs requirements-cluster.txt: `make test-cluster`")

DATASETS = ["fashion_mnist", "imagenette"]  # pixels; JPEG files of different sizes
FEATURES = "imagenette_vgg16"
BIN = Path(sys.executable).parent


def set_engine(folder: Path, engine: str) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M))


def enough_batches(values: Any) -> None:
    """A dozen of them for the backbone."""
    values["datasets"]["imagenette"]["sample"] = {"train": 300, "test": 70}
    values["features"][FEATURES]["image_size"] = 96


def mlflow_runs(folder: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


def stage(folder: Path, module: str, name: str, engine: str, address: str = "") -> subprocess.Popen[str]:
    """Start a stage as DVC does, with `engine` in params.yaml."""
    set_engine(folder, engine)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address}
    command = [sys.executable, "-m", f"stages.{module}", name]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What a stage that ends well has said, which is one line."""
    said, errors = process.communicate()
    assert process.returncode == 0 and errors == "", said + errors
    return said


def written(folder: Path) -> dict[str, str]:
    """The hash of every file in data/ but the archives."""
    files = [path for path in (folder / "data").rglob("*") if path.is_file() and "raw" not in path.parts]
    assert files
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose records and features the local engine has written: a dozen batches of the latter."""
    folder = tmp_path_factory.mktemp("local")
    write_params(folder, enough_batches)
    values = params.load(folder / "params.yaml")
    for name in DATASETS:
        draw(name, values.datasets[name], folder / "data/raw" / name)
        finished(stage(folder, "preprocess", name, "local"))
    draw("vgg16", values.weights["vgg16"], folder / "data/raw/vgg16")
    finished(stage(folder, "extract", FEATURES, "local"))
    return folder


@pytest.fixture
def other(local: Path, tmp_path: Path) -> Path:
    """A project with the same parameters and archives."""
    shutil.copy(local / "params.yaml", tmp_path)
    shutil.copytree(local / "data/raw", tmp_path / "data/raw")
    return tmp_path


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


def test_ray_on_this_machine_writes_the_same_bytes(local: Path, other: Path) -> None:
    said = [finished(stage(other, "preprocess", name, "ray")) for name in DATASETS]
    assert said == ["train: 40 images, test: 20 images\n", "train: 300 images, test: 70 images\n"]
    assert finished(stage(other, "extract", FEATURES, "ray")).startswith("vgg16 features of imagenette, ")
    assert written(other) == written(local)


def test_a_node_that_dies_changes_nothing(tmp_path: Path, cluster: Any) -> None:
    """The pipeline on three nodes, two models in training at the same time, and one node killed during extract."""

    def change(values: Any) -> None:
        only(values, "mnist_dense", "imagenette_vgg16")
        enough_batches(values)

    here, away = (clone_of_work_tree(tmp_path / name, change) for name in ("here", "away"))
    assert run(here, "dvc", "repro").returncode == 0
    set_engine(away, "ray")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.cluster"],
            cwd=away,
            env={**os.environ, "RAY_ADDRESS": cluster.address, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        victim, _ = cluster.worker_nodes
        while not busy(victim):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        cluster.remove_node(victim, allow_graceful=False)
        assert process.wait() == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert said.index("Running stage 'extract@") < said.index("Running stage 'train@mnist_dense'")
    assert "epoch 1/1: loss" in said and "Traceback" not in said
    assert (away / "dvc.lock").read_text() == (here / "dvc.lock").read_text()
    assert run(away, "dvc", "status", "--quiet").returncode == 0
    assert {run.info.status for run in mlflow_runs(away)} == {"FINISHED"}
    assert len(mlflow_runs(away)) == len(mlflow_runs(here)) == 2


def test_a_damaged_archive_is_one_line_from_a_node(other: Path) -> None:
    (archive,) = (other / "data/raw/imagenette").iterdir()
    archive.write_bytes(archive.read_bytes()[:-5000])
    process = stage(other, "preprocess", "imagenette", "ray")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith(f"error: data/raw/imagenette/{archive.name}: ") and errors.count("\n") == 1
    assert not (other / "data/records/imagenette").exists()


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

with cluster.connected():
    numbers = []
    for data in cluster.mapped({"train": read}, lambda data: data)["train"]:
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
