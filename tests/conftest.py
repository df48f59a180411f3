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


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` with the tests' own interpreter as `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)


def clone_of_work_tree(folder: Path) -> Path:
    """The work tree with tiny samples and one epoch, committed in a repository of its own in `folder`."""
    files = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    write_params(folder)
    assert run(folder, "git", "init", "-q").returncode == 0
    commit(folder, "tiny")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit all that Git does not ignore."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["add", "-A"], [*identity, "commit", "-q", "-m", message]):
        assert run(folder, "git", *command).returncode == 0


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
