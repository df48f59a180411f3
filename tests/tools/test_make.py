"""`make` where it cannot work, and what a clone remembers."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

FILES = ["requirements.txt", "requirements-gpu.txt"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A Makefile with a Python, in whose .venv pip only records what it is called with."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in FILES:
        (tmp_path / name).write_text(f"content of {name}\n", encoding="utf-8")
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    for name in ("python", "pip", "dvc"):
        (binaries / name).write_text(
            '#!/bin/sh\necho "$(basename "$0") $*" >> calls.txt\nenv > environment.txt\n', encoding="utf-8"
        )
        (binaries / name).chmod(0o755)
    (tmp_path / ".dvc").mkdir()
    assert run(tmp_path, "git", "init", "-q").returncode == 0
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # As a user calls it, not as a make that `make test` calls
    return run(folder, "env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", "--silent", *arguments, **environment)


@pytest.mark.parametrize(
    ("system", "machine", "supported"),
    [
        ("Linux", "x86_64", True),
        ("Linux", "aarch64", True),
        ("Darwin", "arm64", True),
        ("Darwin", "x86_64", False),
        ("MINGW64_NT-10.0", "x86_64", False),
    ],
)
def test_setup_on_an_unsupported_platform_is_one_sentence(
    clone: Path, system: str, machine: str, supported: bool
) -> None:
    fake = clone / "fake/uname"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase "$1" in -m) echo {machine};; *) echo {system};; esac\n', encoding="utf-8")
    fake.chmod(0o755)
    done = run(clone, "bash", "-c", 'unset MAKEFLAGS MAKELEVEL; PATH="$PWD/fake:$PATH" make --silent setup')
    if supported:
        assert done.returncode == 0, done.stderr
        return
    advice = "use Linux, macOS on Apple silicon, or Windows through WSL"
    message = f"error: {system} on {machine} is not supported: {advice}\n"
    assert (done.returncode, done.stderr.partition("make:")[0]) == (2, message)
    assert not (clone / "calls.txt").exists()


@pytest.mark.parametrize("target", ["setup", "pull", "repro", "review"])
def test_target_without_a_git_repository_is_one_sentence(clone: Path, target: str) -> None:
    shutil.rmtree(clone / ".git")
    done = make(clone, target)
    message = f"error: {clone} is not in a Git repository, which DVC needs: clone the project, or run git init here\n"
    assert (done.returncode, done.stderr.partition("make:")[0]) == (2, message)


def test_clone_remembers_its_requirements(clone: Path) -> None:
    assert make(clone, "setup", "REQUIREMENTS=requirements-gpu.txt").returncode == 0
    assert (clone / ".venv/installed.txt").read_text(encoding="utf-8") == "content of requirements-gpu.txt\n"
    (clone / "calls.txt").unlink()
    assert make(clone, "pull").returncode == 0
    assert "pip install" not in (clone / "calls.txt").read_text(encoding="utf-8")
    (clone / "requirements-gpu.txt").write_text("newer\n", encoding="utf-8")
    assert make(clone, "setup").returncode == 0
    assert "--require-hashes -r requirements-gpu.txt" in (clone / "calls.txt").read_text(encoding="utf-8")
    done = make(clone, "setup", "REQUIREMENTS=requirements.txt")
    message = "error: .venv has the packages of requirements-gpu.txt: remove .venv to install requirements.txt\n"
    assert (done.returncode, done.stderr.partition("make:")[0]) == (2, message)


def test_jobs_run_the_targets_at_the_same_time(clone: Path) -> None:
    for jobs in ("", "1", "3"):
        assert make(clone, "repro", "TARGETS=train@a train@b", f"JOBS={jobs}").returncode == 0
        called = (clone / "calls.txt").read_text(encoding="utf-8")
        assert called.endswith(f"python -m tools.run.repro {jobs} train@a train@b\n")


def test_unknown_requirements_are_one_sentence(clone: Path) -> None:
    done = make(clone, "setup", "REQUIREMENTS=nowhere.txt")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere.txt: no such file: ")


@pytest.mark.parametrize(
    ("tool", "variables"), [("compare.gate", ["BASE"]), ("data.dataset", ["NAME", "FROM", "GROUP"])]
)
def test_value_with_a_dollar_reaches_its_tool_as_it_is(clone: Path, tool: str, variables: list[str]) -> None:
    value = "$(shell touch made)_$x_${y}_$$"
    assert make(clone, tool.partition(".")[2], *(f"{name}={value}" for name in variables)).returncode == 0
    called = (clone / "calls.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert called.startswith(f"python -m tools.{tool} {value}") and called.count(value) == len(variables)
    assert not (clone / "made").exists()


@pytest.mark.parametrize(
    ("target", "switch", "argument"),
    [
        ("dataset", "SKIP_INVALID", "--skip-invalid"),
        ("measure", "WHOLE", "1"),
        ("promote", "FORCE", "1"),
        ("bench", "QUICK", "--quick"),
    ],
)
def test_switch_is_1_or_empty(clone: Path, target: str, switch: str, argument: str) -> None:
    assert make(clone, "setup").returncode == 0
    for value in ("0", "$(shell touch made)"):
        done = make(clone, target, f"{switch}={value}")
        message = f"error: {switch}: '{value}': it should be 1, or empty\n"
        assert (done.returncode, done.stderr.partition("make:")[0]) == (2, message)
    assert target not in (clone / "calls.txt").read_text(encoding="utf-8") and not (clone / "made").exists()
    for value in ("", "1"):
        assert make(clone, target, f"{switch}={value}").returncode == 0
        assert (argument in (clone / "calls.txt").read_text(encoding="utf-8").splitlines()[-1].split()) == bool(value)


def test_environment_of_a_user_reaches_no_tool(clone: Path) -> None:
    done = make(clone, "gate", PYTHONPATH="foreign", PYTHONSAFEPATH="1", PYTHONWARNINGS="error", PYTHONUTF8="0")
    assert done.returncode == 0
    lines = (clone / "environment.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("PYTHON") and "=1" not in line] == []
    assert "PYTHONUTF8=1" in lines and "PYTHONSAFEPATH=1" not in lines
