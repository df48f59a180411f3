"""A small project of its own for each test that needs one: real files, real archives, few images."""

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
