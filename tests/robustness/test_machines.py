"""A training has the same bytes whatever a user's settings and number of cores are; only params.yaml changes them.

Each condition is a process of its own: TensorFlow takes these settings once.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.config import params
from stages.data import writer
from stages.runtime import paths
from tests.conftest import ROOT, only, write_params

MODEL = "cifar10_small_cnn"  # with 1, 2 and 4 threads it has three different models


def train(folder: Path, command: list[str], **environment: str) -> str:
    """Train in another process; the MD5 of the model."""
    done = subprocess.run(
        [*command, sys.executable, "-m", "stages.train", MODEL],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout
    return hashlib.md5((folder / paths.model(MODEL)).read_bytes()).hexdigest()


@pytest.fixture
def small(project: Path) -> Callable[[int], None]:
    """A project with 640 images of noise; returns a function that sets `threads`."""

    def set_threads(threads: int) -> None:
        def change(values: Any) -> None:
            only(values, MODEL)
            values["threads"] = threads
            values["train"]["epochs"] = 3
            values["train"]["compute_dtype"] = "float32"

        write_params(project, change)

    set_threads(2)
    rng = np.random.default_rng(0)
    examples = (
        (split, f"{number:04}", rng.integers(0, 256, (32, 32, 3)).astype(np.uint8), number % 10)
        for split, count in (("train", 640), ("test", 20))
        for number in range(count)
    )
    writer.write("cifar10", params.load().datasets["cifar10"].class_names, ["train", "test"], examples)
    return set_threads


def test_model_depends_on_threads_of_params_only(small: Callable[[int], None], project: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    settings = {"backend": "jax", "floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}
    (home / ".keras" / "keras.json").write_text(json.dumps(settings), encoding="utf-8")
    models = {}
    for threads in (1, 2):
        small(threads)
        models[threads] = train(project, [])
        environment = json.loads(paths.environment("train", MODEL).read_text(encoding="utf-8"))
        assert environment["threads"] == str(threads)
        names = {"threads", "kernels", "compute_dtype", "tensorflow", "keras", "numpy"}  # nothing of the machine
        assert set(environment) == names
    one_core = ["taskset", "--cpu-list", "0"] if sys.platform == "linux" else []
    small(2)
    assert models[2] == train(
        project,
        one_core,
        HOME=str(home),
        KERAS_BACKEND="jax",
        TF_ENABLE_ONEDNN_OPTS="0",
        TF_NUM_INTRAOP_THREADS="4",
        OMP_NUM_THREADS="1",
    )
