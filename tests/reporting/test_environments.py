"""Results that were computed on another kind of machine are named."""

import json
from pathlib import Path

import pytest

from stages.reporting.environments import notes
from stages.runtime import numerics, paths
from stages.runtime.errors import UserError


def record(stage: str, name: str, **changes: str) -> None:
    path = paths.environment(stage, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"threads": "2", **numerics.machine(), **changes}), encoding="utf-8")


def test_results_of_another_processor_are_named_in_one_line(project: Path) -> None:
    record("train", "cifar10_cnn")
    record("extract", "imagenette_vgg16", threads="4")
    assert list(notes()) == []
    record("train", "mnist_cnn", processor="riscv64")
    record("train", "mnist_dense", processor="riscv64")
    (line,) = notes()
    assert line.startswith(f"note: computed with processor riscv64, here processor {numerics.processor()}, ")
    assert line.endswith(": train@mnist_cnn, train@mnist_dense; `dvc repro --force --single-item STAGE` repeats one")


def test_corrupt_environment_names_the_file(project: Path) -> None:
    record("train", "mnist_cnn")
    paths.environment("train", "mnist_cnn").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"data/environment/train/mnist_cnn\.json: corrupt: "):
        list(notes())
