"""A small project of its own for each test that needs one: real files, real archives, few images."""

import copy
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from stages.runtime.numerics import import_tensorflow

ROOT = Path(__file__).parent.parent
SAMPLE = next(filter(Path.exists, [ROOT / "tests/sample", ROOT]))  # `make new` moves the sample out of the way
TINY = {"train": 40, "test": 20}
SECONDS = Path(".dvc/tmp/seconds.json")  # of each stage, in the folder of `copy_reproduced`
LONG = [
    "test_pipeline",
    "test_faults",
    "test_kill",
    "test_experiments",
    "test_tracking",
    "test_benchmarks",
    "test_serve",
    "test_search",
    "test_real",
    "test_distribution",
    "test_train",
    "test_promote",
    "test_base",
    "test_measure",
    "test_workflows",
    "test_seeds",
    "test_review",
]


def pytest_sessionstart() -> None:
    """Start TensorFlow in each worker process as a stage does: the number of threads cannot be changed afterwards.

    Nor can the kernels, once they have computed something: a training in bfloat16 after a first product with portable
    kernels aborts the process. So the native ones compute here, before a test that asks for others.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        import_tensorflow(YAML(typ="safe").load(SAMPLE / "params.yaml")["threads"], "native")
        import tensorflow as tf

        tf.function(tf.matmul, jit_compile=True)(tf.ones([8, 8]), tf.ones([8, 8]))  # XLA's
        tf.nn.conv2d(tf.ones([1, 8, 8, 8]), tf.ones([3, 3, 8, 8]), 1, "SAME")  # oneDNN's


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take minutes first, so that none of them is what everybody waits for in the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def write_params(folder: Path, change: Callable[[Any], None] = lambda values: None) -> None:
    """Write params.yaml to `folder`: the repository's with tiny synthetic datasets, one epoch, and `change` applied."""
    values = copy.deepcopy(_params())
    for dataset in values["datasets"].values():
        dataset["synthetic"] = TINY
    for features in values["features"].values():
        features.pop("synthetic", None)  # a test sets their size
    values["train"]["epochs"] = 1
    models = list(values["models"])
    change(values)
    for name in models:
        if name not in values["models"]:
            values["gates"].pop(name, None)  # a model that a test takes away takes its gate and its search along
            values["search"].pop(name, None)
    values["export"] = [name for name in values["export"] if name in values["models"]]
    _yaml().dump(values, folder / "params.yaml")


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096
    return yaml


@functools.cache
def _params() -> Any:
    """The repository's params.yaml; hundreds of tests change a copy of it."""
    return _yaml().load(SAMPLE / "params.yaml")


def only(values: Any, *models: str) -> None:
    """Leave these models, and the data that they need, for `write_params`."""
    values["models"] = {name: values["models"][name] for name in models}
    used = {model["dataset"] for model in values["models"].values()}
    values["pretrained"] = {name: entry for name, entry in values["pretrained"].items() if name in used}
    values["features"] = {name: entry for name, entry in values["features"].items() if name in used}
    used |= {entry["dataset"] for entry in values["features"].values()}
    values["datasets"] = {name: entry for name, entry in values["datasets"].items() if name in used}
    backbones = {entry["backbone"] for entry in values["features"].values()}
    values["weights"] = {name: entry for name, entry in values["weights"].items() if name in backbones}
    values["not_in_pretraining"] = {
        name: entry for name, entry in values["not_in_pretraining"].items() if name in values["datasets"]
    }


def environment() -> dict[str, str]:
    """This process's, with the tests' own interpreter as `python`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(folder: Path, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` in the tests' environment with `changes`."""
    settings = environment() | changes
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, encoding="utf-8")


def commit(folder: Path, message: str) -> None:
    """Commit everything in `folder` to Git."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["add", "-A"], [*identity, "commit", "-q", "--allow-empty", "-m", message]):
        done = run(folder, "git", *command)
        assert done.returncode == 0, done.stderr


def copy_work_tree(folder: Path) -> None:
    """Copy what Git has of the work tree, or would add, to `folder`, which becomes a repository of its own."""
    files = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    if SAMPLE != ROOT:
        shutil.copytree(SAMPLE, folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "tests/sample")
    assert run(folder, "git", "init", "-q", "-b", "main").returncode == 0


def clone_of_work_tree(folder: Path, change: Callable[[Any], None] = lambda values: None) -> Path:
    """The work tree with what `write_params` makes of params.yaml, committed in a repository of its own in `folder`."""
    copy_work_tree(folder)
    write_params(folder, change)
    commit(folder, "tiny")
    return folder


def reproduce(folder: Path) -> dict[str, float]:
    """Run `dvc repro`. Returns the seconds of each stage, and of DVC before the first one under an empty name."""
    begun, said = {"": time.monotonic()}, []
    with subprocess.Popen(
        ["dvc", "repro"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if found := re.match("Running stage '([^']+)'", line):
                begun[found[1]] = time.monotonic()
    assert process.returncode == 0, "".join(said)
    ends = [*list(begun.values())[1:], time.monotonic()]
    return {stage: end - at for (stage, at), end in zip(begun.items(), ends, strict=True)}


def outputs(folder: Path) -> dict[str, str]:
    """The hash of every output in dvc.lock."""
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


def wait_for_queue(folder: Path) -> list[str]:
    """Wait until DVC's queue has nothing left to run. Returns the state of each experiment in it.

    Asks in this process: `dvc queue status`, again and again, would take more time than the experiment.
    """
    from dvc.repo import Repo

    deadline = time.monotonic() + 300
    while True:
        with Repo(folder) as repo:
            states = [str(task["status"]) for task in repo.experiments.celery_queue.status()]
        if states and not {"Queued", "Running"} & set(states):
            return states
        assert time.monotonic() < deadline, states
        time.sleep(0.5)


@pytest.fixture(scope="module", autouse=True)
def no_tracking_server_of_an_earlier_module() -> None:
    """The fixtures of a module come before those of a test, `no_tracking_server` among them."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module", autouse=True)
def float32_of_keras() -> None:
    """A module starts with Keras's default policy, whatever a training of an earlier one has set in this process."""
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a database in the working directory; MLflow itself sets the variable, which then outlives a test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Processes of the test take Ctrl-C, also where all of it runs in the background and the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with params.yaml, which is the working directory of the test."""
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_split(split: str, examples: Iterable[tuple[str, str, Any, int]]) -> list[tuple[str, Any, int]]:
    """Key, image and label of the examples of a split."""
    return [example[1:] for example in examples if example[0] == split]


CopyFolder = Callable[[Path], Path]


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> CopyFolder:
    """Let `build` fill an empty folder, in one of the worker processes for all of them.

    Returns:
        A function that copies the folder to another one, which may exist, and returns that.
    """
    base = factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            part = made.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)  # of a build that failed in another process
            part.mkdir()
            build(part)
            part.rename(made)
    return lambda folder: Path(shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True))


def thirty_epochs(values: Any) -> None:
    """One model of `copy_reproduced`, for `write_params`."""
    only(values, "mnist_dense")
    values["train"]["epochs"] = 30


@pytest.fixture(scope="session")
def copy_reproduced(tmp_path_factory: pytest.TempPathFactory) -> CopyFolder:
    """Copies a clone with one model that `dvc repro` has made, committed, and the seconds of each stage in SECONDS.

    The copies have no MLflow database, whose experiments have absolute paths.
    """

    def build(folder: Path) -> None:
        clone_of_work_tree(folder, thirty_epochs)
        (folder / "dvc.lock").unlink()  # it lists stages that this pipeline does not have
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # of a test before; this fixture comes before all others
            seconds = reproduce(folder)
        (folder / "mlflow.db").unlink(missing_ok=True)  # a busy machine leaves the run for later
        shutil.rmtree(folder / "mlruns")
        commit(folder, "baseline")
        (folder / SECONDS).write_text(json.dumps(seconds), encoding="utf-8")

    return build_once(tmp_path_factory, "reproduced", build)


@pytest.fixture(scope="session")
def copy_evaluated(tmp_path_factory: pytest.TempPathFactory) -> CopyFolder:
    """Copies a folder with three evaluated models: their data, predictions, metrics and tables, but no report."""
    from tests.reporting.project import write_project

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            write_project(folder)

    return build_once(tmp_path_factory, "evaluated", build)


@pytest.fixture(scope="session")
def evaluated(copy_evaluated: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three evaluated models that are not yet reported."""
    return copy_evaluated(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def reported(copy_evaluated: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `stages.report`."""
    from stages import report

    def build(folder: Path) -> None:
        copy_evaluated(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            report.report()

    return build_once(tmp_path_factory, "reported", build)(tmp_path_factory.mktemp("reported"))
