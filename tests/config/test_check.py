"""A wrong or failed change of params.yaml loses nothing, and Git shows it."""

import os
from pathlib import Path
from typing import Any

import pytest

from stages import check
from tests.conftest import CopyFolder, clone_of_work_tree, commit, copy_work_tree, only, run


def test_typo_in_params_deletes_no_history(tmp_path: Path, copy_reproduced: CopyFolder) -> None:
    clone = copy_reproduced(tmp_path / "clone")
    params = clone / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("units:", "unit:", 1), encoding="utf-8")
    done = run(clone, "dvc", "repro")
    assert done.returncode != 0
    assert "error: params.yaml: models.mnist_dense.unit" in done.stderr
    assert run(clone, "git", "status", "--short").stdout.split() == ["M", "params.yaml"]


def test_failed_experiment_on_real_data_is_a_change_that_git_shows_and_takes_back(tmp_path: Path) -> None:
    def change(values: Any) -> None:
        only(values, "mnist_dense")
        for file, mirrors in values["datasets"]["mnist"]["files"].items():
            mirrors[:] = [f"file:///nowhere/{file}#{mirror.partition('#')[2]}" for mirror in mirrors]

    clone = clone_of_work_tree(tmp_path, change)
    before = (clone / "params.yaml").read_text(encoding="utf-8")
    done = run(clone, "dvc", "exp", "run", "-S", "source=real", "evaluate@mnist_dense")
    assert done.returncode != 0
    assert "error: t10k-images-idx3-ubyte.gz: all mirrors failed" in done.stderr
    assert run(clone, "git", "status", "--short", "params.yaml").stdout == " M params.yaml\n"
    assert run(clone, "git", "checkout", ".").returncode == 0
    assert (clone / "params.yaml").read_text(encoding="utf-8") == before


def test_git_sees_a_change_of_params_in_the_second_of_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git compares sizes and whole seconds: `dvc exp run -S seed=43` right after a checkout was no change."""
    copy_work_tree(tmp_path)
    params = tmp_path / "params.yaml"
    os.utime(params, (1_000_000_000, 1_000_000_000.1))
    commit(tmp_path, "before")
    params.write_text(params.read_text(encoding="utf-8").replace("seed: 42", "seed: 43"), encoding="utf-8")
    os.utime(params, (1_000_000_000, 1_000_000_000.9))
    assert run(tmp_path, "git", "-c", "core.trustctime=false", "status", "--short").stdout == ""
    monkeypatch.chdir(tmp_path)
    check.check()
    assert run(tmp_path, "git", "-c", "core.trustctime=false", "status", "--short").stdout == " M params.yaml\n"
