"""A small project of its own for each test that needs one: real files, real archives, few images."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
TINY = {"train": 40, "test": 20}


def write_params(folder: Path, change: Callable[[Any], None] = lambda values: None) -> None:
    """Write the repository's params.yaml to `folder`, with tiny samples, one epoch, and what `change` does to it."""
    yaml = YAML()
    yaml.width = 4096
    values = yaml.load(ROOT / "params.yaml")
    for dataset in values["datasets"].values():
        dataset["sample"] = TINY
    values["train"]["epochs"] = 1
    change(values)
    yaml.dump(values, folder / "params.yaml")


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` with the tests' own interpreter as `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)


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
    assert run(folder, "git", "init", "-q", "-b", "main").returncode == 0


def clone_of_work_tree(folder: Path) -> Path:
    """The work tree with tiny samples and one epoch, committed in a repository of its own in `folder`."""
    copy_work_tree(folder)
    write_params(folder)
    commit(folder, "tiny")
    return folder


@pytest.fixture(autouse=True)
def no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a database in the working directory; MLflow itself sets the variable, which then outlives a test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with params.yaml, which is the working directory of the test."""
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
