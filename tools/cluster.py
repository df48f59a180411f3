"""`make cluster`: the pipeline with all stale models in training at the same time, on the nodes of a Ray cluster.

Every stage is DVC's own, started as `dvc repro` starts it: dvc.lock, DVC's caches and MLflow know nothing of it.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from stages import cluster, params
from stages.console import UserError, run

AT_ONCE = 32  # of the processes here, which wait for a training elsewhere


def main() -> None:
    """Bring everything up to date: data, then models at the same time, then what is made of them.

    Raises:
        UserError: `engine` is not ray, or a stage failed.
    """
    values = params.load()
    if values.engine != "ray":
        raise UserError(f"params.yaml: engine: {values.engine}; set it to ray, or `make repro`")
    with cluster.connected() as address:
        os.environ["RAY_ADDRESS"] = address
        _dvc(
            "repro",
            *(f"preprocess@{name}" for name in values.datasets),
            *(f"extract@{name}" for name in values.features),
        )
        models = [f"train@{name}" for name in values.models]
        stale = [name for name in models if name in json.loads(_dvc("status", "--json", *models, show=False))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            failed = [name for name, well in zip(stale, pool.map(_train, stale), strict=True) if not well]
        if failed:
            raise UserError(f"{', '.join(failed)} failed; see above")
        _dvc("repro")


def _train(stage: str) -> bool:
    """Run a stage whose inputs are there, beside others; show what it said when it is over, and tell how it ended."""
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", stage]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="", flush=True)
    return done.returncode == 0


def _dvc(*arguments: str, show: bool = True) -> str:
    done = subprocess.run(["dvc", *arguments], stdout=None if show else subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"dvc {arguments[0]} failed; see above")
    return done.stdout or ""


if __name__ == "__main__":
    run(main)
