"""A revision reproduced on this machine: another machine's results do not count as changes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import CopyFolder, commit, environment, run
from tests.tools.fake_pipeline import reproduce, write_fake_params
from tools.compare import base
from tools.lib import revision
from tools.lib.git import git


@pytest.fixture(scope="module")
def origin(copy_fake_repository: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`main` from machine a; `change`, a branch with one model that is trained differently."""
    folder = copy_fake_repository(tmp_path_factory.mktemp("origin"))
    assert run(folder, "git", "checkout", "-q", "-b", "change").returncode == 0
    write_fake_params(folder, lambda values: values["models"]["mnist_cnn"].update(learning_rate=0.003))
    commit(folder, "train mnist_cnn faster")
    assert run(folder, "git", "checkout", "-q", "main").returncode == 0
    return folder


@pytest.fixture(scope="module")
def clone(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of `change` with an empty cache, in which machine b ran the pipeline. Tests use it in their order."""
    folder = tmp_path_factory.mktemp("clones") / "clone"
    assert run(origin, "git", "clone", "-q", "-b", "change", str(origin), str(folder)).returncode == 0
    reproduce(folder, "b")
    return folder


def tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", *arguments, FAKE_MACHINE="b")


def reproduced(folder: Path) -> str:
    """The reference of the reproduction of origin/main."""
    return revision.reference(run(folder, "git", "rev-parse", "origin/main").stdout.strip())


def changed_models(text: str) -> list[str]:
    """The models of the first table."""
    return [line.split("`")[1] for line in text.split("\n\n")[1].splitlines() if line.startswith("| `")]


def test_base_not_reproduced_reports_every_model_as_changed_and_gives_the_advice(clone: Path) -> None:
    text = tool(clone, "tools.compare.review", "origin/main").stdout
    assert len(changed_models(text)) == 3
    assert (
        "`origin/main` was produced on: an unknown machine (`make base BASE=origin/main` reproduces it here)." in text
    )
    assert "The workspace: processor b." in text
    models = "`fashion_mnist_lenet`, `mnist_cnn`, `mnist_dense`"
    assert f"No paired test, no predictions of origin/main in the cache or a remote: {models}" in text


def test_base_reproduced_leaves_only_the_real_change_with_a_paired_test(clone: Path) -> None:
    killed, running = (clone / ".dvc/tmp/reproduced" / name for name in ("killed", "running"))
    for left in (killed, running):  # worktrees of other commits
        assert run(clone, "git", "worktree", "add", "-q", "--detach", str(left)).returncode == 0
    with FileLock(f"{running}.lock"):
        done = tool(clone, "tools.compare.base", "origin/main")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not killed.exists() and running.exists()
    assert run(clone, "git", "worktree", "remove", str(running)).returncode == 0
    # The run cache has the models that the change does not concern
    assert done.stderr.count("Running stage 'train@") == 1
    text = tool(clone, "tools.compare.review", "origin/main").stdout
    assert changed_models(text) == ["mnist_cnn"]
    assert (
        "| `mnist_cnn` | 89.25% | 69.25% | −20.00 | < 0.001 | **worse** | 89.25% | 69.25% | 80 | 0 | < 0.001 |" in text
    )
    assert "Both sides were produced on: processor b." in text
    assert run(clone, "git", "status", "--short").stdout == run(clone, "git", "status", "--short", "-uno").stdout
    assert run(clone, "git", "worktree", "list").stdout.count("\n") == 1
    assert list((clone / ".dvc/tmp").rglob("params.yaml")) == []
    older = "for number in $(seq 25); do git update-ref refs/reproduced/$number HEAD; done"
    assert run(clone, "sh", "-c", older).returncode == 0
    again = tool(clone, "tools.compare.base", "origin/main")
    assert again.stderr == "origin/main: already reproduced on this machine\n"
    assert run(clone, "git", "for-each-ref", "refs/reproduced").stdout.count("\n") == base.KEPT
    assert f"All metrics: `dvc metrics diff {reproduced(clone)} --md`." in text


def test_dvc_names_a_reproduction_in_metrics_diff(clone: Path) -> None:
    done = run(clone, "dvc", "metrics", "diff", reproduced(clone), "--md")
    assert "mnist_cnn" in done.stdout and "mnist_dense" not in done.stdout, done.stderr


def test_run_cache_has_no_results_for_a_revision_with_other_packages(
    copy_fake_repository: CopyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_fake_repository(tmp_path / "clone")
    python = f'#!/bin/sh\nFAKE_MACHINE=b exec {sys.executable} "$@"\n'  # other packages compute other bits
    (folder / "python").write_text(python, encoding="utf-8")
    setup = "setup:\n\tmkdir -p .venv/bin && install python .venv/bin\n"
    (folder / "Makefile").write_text(setup, encoding="utf-8")
    commit(folder, "old packages")
    with (folder / "requirements.txt").open("a", encoding="utf-8") as lock:
        lock.write("# newer\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", environment()["PATH"])
    head = git("rev-parse", "HEAD")
    base.reproduce(head, "HEAD", models=["mnist_dense"])
    metrics = "reports/metrics/mnist_dense.json"
    found = [json.loads(git("show", f"{rev}:{metrics}"))["accuracy"] for rev in ("HEAD", revision.reference(head))]
    assert found == [0.9, 0.8925]


def test_revision_that_cannot_be_reproduced_is_one_line(clone: Path) -> None:
    done = tool(clone, "tools.compare.base", "nowhere")
    assert done.stderr == "error: 'nowhere': no such revision; fetch it, or name a branch, tag, commit or experiment\n"
    (clone / "tests/tools/fake_stages.py").write_text("raise SystemExit(3)", encoding="utf-8")
    commit(clone, "broken")
    shutil.rmtree(clone / ".dvc/cache/runs")
    done = tool(clone, "tools.compare.base", "HEAD")
    assert done.returncode == 1
    message = "error: HEAD: dvc repro failed on this revision, see above; compare with another revision"
    assert done.stderr.splitlines()[-1] == message
    assert run(clone, "git", "worktree", "list").stdout.count("\n") == 1


def test_project_in_a_subfolder_of_a_repository_finds_its_revisions(origin: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(origin, outer / "project", symlinks=True, ignore=shutil.ignore_patterns(".git"))
    assert run(outer, "git", "init", "-q").returncode == 0
    commit(outer, "both")
    folder = outer / "project"
    write_fake_params(folder, lambda values: values["models"]["mnist_cnn"].update(learning_rate=0.003))
    reproduce(folder, "b")
    assert (
        "`models.mnist_cnn.learning_rate` | `0.001` | `0.003` |" in tool(folder, "tools.compare.review", "HEAD").stdout
    )
    done = tool(folder, "tools.compare.base", "HEAD")
    assert done.returncode == 0, done.stderr
    assert changed_models(tool(folder, "tools.compare.review", "HEAD").stdout) == ["mnist_cnn"]
