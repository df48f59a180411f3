"""A wrong or failed change of params.yaml loses nothing, and Git shows it."""

import os
from pathlib import Path

import pytest

from stages import check
from tests.conftest import CopyFolder, commit, copy_work_tree, run


def test_typo_in_params_deletes_no_history(tmp_path: Path, copy_reproduced: CopyFolder) -> None:
    clone = copy_reproduced(tmp_path / "clone")
    params = clone / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("units:", "unit:", 1), encoding="utf-8")
    done = run(clone, "dvc", "repro")
    assert done.returncode != 0
    assert "error: params.yaml: models.mnist_dense.unit" in done.stderr
    assert run(clone, "git", "status", "--short").stdout.split() == ["M", "params.yaml"]


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
