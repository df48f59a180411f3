"""The same bytes on a cluster: on Ray's own, of this machine, and on three nodes that are processes of it."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from stages import params
from stages.sample import draw
from tests.conftest import ROOT, write_params

pytest.importorskip("ray", reason="needs requirements-cluster.txt: `make test-cluster`")

DATASETS = ["fashion_mnist", "imagenette"]  # pixels; JPEG files of different sizes
FEATURES = "imagenette_vgg16"


def stage(folder: Path, module: str, name: str, engine: str, address: str = "") -> subprocess.Popen[str]:
    """Start a stage as DVC does, with `engine` in params.yaml."""
    yaml = YAML()
    values = yaml.load(folder / "params.yaml")
    values["engine"] = engine
    yaml.dump(values, folder / "params.yaml")
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


def outputs(folder: Path) -> dict[str, str]:
    """The hash of every file in data/ but the archives."""
    files = [path for path in (folder / "data").rglob("*") if path.is_file() and "raw" not in path.parts]
    assert files
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose records and features the local engine has written: a dozen batches of the latter."""
    folder = tmp_path_factory.mktemp("local")

    def change(values: dict[str, Any]) -> None:
        values["datasets"]["imagenette"]["sample"] = {"train": 300, "test": 70}
        values["features"][FEATURES]["image_size"] = 96

    write_params(folder, change)
    values = params.load(folder / "params.yaml")
    for name in DATASETS:
        draw(name, values.datasets[name], folder / "data/raw" / name)
        finished(stage(folder, "preprocess", name, "local"))
    draw("vgg16", values.weights["vgg16"], folder / "data/raw/vgg16")
    finished(stage(folder, "extract", FEATURES, "local"))
    return folder


@pytest.fixture
def other(local: Path, tmp_path: Path) -> Callable[..., Path]:
    """A project with the same inputs: archives, or also the records of a dataset."""

    def make(*inputs: str) -> Path:
        for path in ("params.yaml", "data/raw", *inputs):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", local / path, tmp_path / path], check=True)
        return tmp_path

    return make


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


def test_ray_on_this_machine_writes_the_same_bytes(local: Path, other: Callable[..., Path]) -> None:
    folder = other()
    said = [finished(stage(folder, "preprocess", name, "ray")) for name in DATASETS]
    assert said == ["train: 40 images, test: 20 images\n", "train: 300 images, test: 70 images\n"]
    assert finished(stage(folder, "extract", FEATURES, "ray")).startswith("vgg16 features of imagenette, ")
    assert outputs(folder) == outputs(local)


def test_a_node_that_dies_during_extract_costs_a_retry(local: Path, other: Callable[..., Path], cluster: Any) -> None:
    folder = other("data/records/imagenette")
    process = stage(folder, "extract", FEATURES, "ray", cluster.address)
    (victim, _) = cluster.worker_nodes
    while not busy(victim):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    cluster.remove_node(victim, allow_graceful=False)
    assert process.poll() is None
    finished(process)
    written = outputs(folder)
    assert {path: hashed for path, hashed in outputs(local).items() if path in written} == written
    assert any(FEATURES in path for path in written)


def test_a_damaged_archive_is_one_line_from_a_node(other: Callable[..., Path]) -> None:
    folder = other()
    (archive,) = (folder / "data/raw/imagenette").iterdir()
    archive.write_bytes(archive.read_bytes()[:-5000])
    process = stage(folder, "preprocess", "imagenette", "ray")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith(f"error: data/raw/imagenette/{archive.name}: ") and errors.count("\n") == 1
    assert not (folder / "data/records/imagenette").exists()


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
