"""`make cluster`: the pipeline with all stale models in training at the same time, on the nodes of a Ray cluster.

DVC runs every stage as `dvc repro` does, so dvc.lock, DVC's caches and MLflow contain the same as without Ray.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.cluster.connect import connected
from stages.config import params
from stages.runtime.cli import run
from stages.runtime.errors import UserError

MAX_TRAININGS = 32  # at the same time: each is a process here that waits for a node


def main() -> None:
    """Reproduce the data, then all models at the same time, then the rest."""
    values = params.load()
    if values.engine != "ray":
        raise UserError(f"params.yaml: engine: {values.engine}; set it to ray, or run `make repro`")
    with connected() as address:
        os.environ["RAY_ADDRESS"] = address
        data = [values.preprocess_stage(name) for name in values.datasets]
        data += [f"extract@{name}" for name in values.features]
        _dvc("repro", *data)
        fine_tuned = {name for name, model in values.models.items() if model.dataset in values.pretrained}
        _train_all([name for name in values.models if name not in fine_tuned])
        if fine_tuned:
            _dvc("repro", *(f"join@{name}" for name in values.pretrained))
            _train_all([name for name in values.models if name in fine_tuned])
        _dvc("repro")


def _train_all(names: list[str]) -> None:
    """Train those of the models that are stale at the same time."""
    models = [f"train@{name}" for name in names]
    stale = [name for name in models if name in json.loads(_dvc("status", "--json", *models, show=False))]
    with ThreadPoolExecutor(MAX_TRAININGS) as pool:
        failed = [name for name, succeeded in zip(stale, pool.map(_train, stale), strict=True) if not succeeded]
    if failed:
        raise UserError(f"{', '.join(failed)} failed; see above")


def run_beside(name: str, command: list[str], **options: Any) -> bool:
    """Run a command beside others and print its output line by line after `name`. Returns whether it succeeded."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", **options
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{name}: {line}", end="", flush=True)
    return process.returncode == 0


def _train(stage: str) -> bool:
    return run_beside(stage, ["dvc", "--wait-for-lock", "repro", "--single-item", stage])


def _dvc(*arguments: str, show: bool = True) -> str:
    done = subprocess.run(["dvc", *arguments], stdout=None if show else subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise UserError(f"dvc {arguments[0]} failed; see above")
    return done.stdout or ""


if __name__ == "__main__":
    run(main)
