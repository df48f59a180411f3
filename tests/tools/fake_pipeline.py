"""A repository whose pipeline takes no time: tests.tools.fake_stages instead of the stages."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import commit, copy_work_tree, only, run, write_params

MODELS = ["mnist_dense", "mnist_cnn", "fashion_mnist_lenet"]

DVC = """
stages:
  check:
    cmd: mkdir -p data && touch data/checked
    deps: [params.yaml]
    outs: [data/checked]
  preprocess:
    foreach: ${datasets}
    do:
      cmd: python -m tests.tools.fake_stages preprocess ${key} ${source}
      params: [source, "datasets.${key}"]
      deps: [data/checked]
      outs: ["data/records/${key}", "data/counts/${key}.json"]
  train:
    foreach: ${models}
    do:
      cmd: python -m tests.tools.fake_stages train ${key} ${item.learning_rate}
      params: [seed, train, "models.${key}"]
      deps: ["data/records/${item.dataset}", stages/models]
      outs:
        - data/models/${key}.keras
        - data/predictions/${key}.parquet
        - data/environment/train/${key}.json
      plots:
        - reports/history/${key}.csv: {cache: false}
  evaluate:
    foreach: ${models}
    do:
      cmd: python -m tests.tools.fake_stages evaluate ${key} ''
      deps: ["data/predictions/${key}.parquet", "reports/history/${key}.csv"]
      metrics:
        - reports/metrics/${key}.json: {cache: false}
      plots:
        - reports/plots/classes/${key}.csv: {cache: false}
"""


def fake_repository(folder: Path, change: Callable[[Any], None] = lambda values: None) -> Path:
    """The work tree with this pipeline and three models, run on machine a and committed to `main`."""
    copy_work_tree(folder)
    for path in ("reports/metrics", "reports/history", "reports/plots", "reports/measured/seed-*"):
        for found in folder.glob(path):
            shutil.rmtree(found)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "dvc.yaml").write_text(DVC, encoding="utf-8")
    write_fake_params(folder, change)
    reproduce(folder)
    commit(folder, "base")
    return folder


def write_fake_params(folder: Path, change: Callable[[Any], None] = lambda values: None) -> None:
    """params.yaml with three models and what `change` does to it."""

    def three(values: Any) -> None:
        only(values, *MODELS)
        for model in values["models"].values():
            model["learning_rate"] = 0.001
        values["gates"] = {name: {"min_accuracy": 0.85, "max_drop": 0.02} for name in MODELS}
        change(values)

    write_params(folder, three)


def reproduce(folder: Path, machine: str = "a") -> None:
    """Run the pipeline."""
    done = run(folder, "dvc", "repro", FAKE_MACHINE=machine)
    assert done.returncode == 0, done.stdout + done.stderr


def link_environment(folder: Path) -> None:
    """Give a clone a .venv that `make setup` accepts."""
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in ("installed.txt", "requirements-name"):
            (folder / ".venv" / entry.name).symlink_to(entry)
    shutil.copy(folder / "requirements.txt", folder / ".venv/installed.txt")
