"""The pipeline as a user runs it: `dvc` in a temporary clone, with tiny synthetic datasets and one epoch.

Takes minutes: every stage is a process. A model on pixels and one on features take part;
tests/training/test_models.py trains every model of params.yaml for a step. Tests use the clone in their order.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages.config import params
from tests.conftest import clone_of_work_tree, only, outputs, run

MODELS = ("mnist_dense", "imagenette_vgg16")
LEFT = ("mnist_dense",)  # by the test that removes the other


def small(values: Any) -> None:
    only(values, *MODELS)
    values["features"]["imagenette_vgg16"]["image_size"] = 32


def repro(folder: Path, *arguments: str) -> set[str]:
    """`dvc repro`: the stages that ran, besides `check`, which a change of params.yaml makes stale."""
    done = run(folder, "dvc", "repro", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"Running stage '([^']+)'", done.stdout)) - {"check"}


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / "params.yaml").write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the work tree, reproduced once."""
    folder = clone_of_work_tree(tmp_path_factory.mktemp("clone"), small)
    ran = repro(folder)
    values = params.load(folder / "params.yaml")
    stages: dict[str, Iterable[str]] = {
        "download": values.datasets,
        "download_weights": values.weights,
        "preprocess": values.datasets,
        "extract": values.features,
        "train": values.models,
        "evaluate": values.models,
    }
    assert ran == {f"{stage}@{name}" for stage, names in stages.items() for name in names} | {"report"}
    return folder


@pytest.mark.slow
def test_two_jobs_write_the_bytes_of_one(clone: Path, tmp_path: Path) -> None:
    copy = clone_of_work_tree(tmp_path / "copy", small)
    for command in (["python", "-m", "tools.run.repro", "2", ""], ["dvc", "repro"]):
        done = run(copy, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage" not in done.stdout
    assert (copy / "dvc.lock").read_text(encoding="utf-8") == (clone / "dvc.lock").read_text(encoding="utf-8")


def test_repro_measures_every_model(clone: Path) -> None:
    shown = json.loads(run(clone, "dvc", "metrics", "show", "--json").stdout)
    found = {Path(file).stem: entry["data"] for file, entry in shown[""]["data"].items() if "/metrics/" in file}
    assert set(found) == set(params.load(clone / "params.yaml").models)
    for name, metrics in found.items():
        assert metrics["images"] == 20, name
        assert metrics["epochs"] == 1, name
        assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"], name
    assert 0 < found["imagenette_vgg16"]["not_in_pretraining_images"] < 20
    predictions = pd.read_parquet(clone / "data/predictions/imagenette_vgg16.parquet")
    accuracy = (predictions["true"] == predictions["predicted"]).mean()
    assert found["imagenette_vgg16"]["accuracy"] == pytest.approx(accuracy)
    report = (clone / "reports/README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in report for name in found)
    assert "Synthetic" in report
    page = (clone / "reports/index.html").read_text(encoding="utf-8")
    assert all(f'id="model-{name}"' in page for name in found)


def test_second_repro_runs_nothing(clone: Path) -> None:
    assert repro(clone) == set()
    assert run(clone, "dvc", "status", "--quiet").returncode == 0
    assert list(clone.glob("**/.*.part")) == []


def test_repro_leaves_only_reports_and_dvc_lock_to_git(clone: Path) -> None:
    changed = run(clone, "git", "status", "--short", "--untracked-files=all").stdout
    files = {line[3:] for line in changed.splitlines()}
    assert files <= {"dvc.lock"} | {file for file in files if file.startswith("reports/")}, files


def test_tfds_reads_records_without_the_project(clone: Path) -> None:
    code = (
        "import tensorflow_datasets as tfds; b = tfds.builder_from_directory('data/records/imagenette'); "
        "print(b.info.features['label'].names[2], sum(1 for _ in b.as_dataset(split='train')))"
    )
    done = (
        run(clone, sys.executable, "-P", "-c", code)
        if sys.version_info >= (3, 11)
        else run(clone, sys.executable, "-c", code)
    )
    assert done.stdout.split() == ["cassette", "player", "40"], done.stderr


def test_removing_models_leaves_nothing_of_them_for_the_report(clone: Path) -> None:
    """Otherwise `report` would depend on files that a fresh clone after push and pull does not have."""
    yaml = YAML()
    values = yaml.load(clone / "params.yaml")
    for name in set(MODELS) - set(LEFT):
        for section in ("models", "gates", "search"):
            values[section].pop(name, None)
    yaml.dump(values, clone / "params.yaml")
    assert repro(clone) == {"report"}
    names = {path.stem for path in clone.glob("reports/**/*.*") if "measured" not in path.parts}  # measured results
    assert names & set(MODELS) == set(LEFT)
    assert run(clone, "dvc", "status", "--quiet", "report").returncode == 0


def test_change_of_a_models_entry_reruns_only_that_model(clone: Path) -> None:
    before = outputs(clone)
    edit(clone, "    - 100\n", "    - 101\n")
    assert repro(clone) == {"train@mnist_dense", "evaluate@mnist_dense", "report"}
    edit(clone, "    - 101\n", "    - 100\n")
    assert repro(clone, "evaluate@mnist_dense") == set()  # DVC's run cache has the model and its metrics
    after = outputs(clone)
    assert {path for path in before if after[path] != before[path]} == {
        "reports/README.md",
        "reports/index.html",
    }


def test_result_of_another_machine_from_the_cache_is_named(clone: Path) -> None:
    """As when machines of different kinds share a cache: DVC takes a training of the other one for its own."""
    path = clone / "data/environment/train/mnist_dense.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    path.write_text(json.dumps({**facts, "processor": "riscv64"}), encoding="utf-8")
    done = run(clone, "dvc", "commit", "--force", "train@mnist_dense")
    assert done.returncode == 0, done.stderr
    done = run(clone, "dvc", "repro")
    assert re.findall(r"Running stage '([^']+)'", done.stdout) == ["report"], done.stdout + done.stderr
    assert "note: computed with processor riscv64, here processor " in done.stdout
    assert ": train@mnist_dense; `dvc repro --force --single-item STAGE` repeats one" in done.stdout


def test_invalid_parameter_is_one_line_before_any_work(clone: Path) -> None:
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    edit(clone, "    - 100\n", "    - 100\n    unitts: 3\n")
    done = run(clone, "dvc", "repro", "train@mnist_dense")
    (clone / "params.yaml").write_text(text, encoding="utf-8")
    assert done.returncode != 0
    assert "error: params.yaml: models.mnist_dense.unitts: unknown key with value 3; " in done.stderr
    assert "Traceback" not in done.stderr
