"""The supported platforms: Linux, macOS on Apple silicon, Windows through WSL."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT, clone_of_work_tree, commit, copy_work_tree, only, run

LINUX_ONLY = {"sched_getaffinity", "sched_setaffinity", "pidfd_open", "memfd_create", "posix_fadvise"}


@pytest.mark.parametrize("folder", ["stages", "tools"])
def test_code_calls_nothing_that_macos_lacks(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
        }
        assert not names & LINUX_ONLY, path


@pytest.mark.parametrize("folder", ["stages", "tools", "benchmarks", "tests"])
def test_every_read_and_write_of_text_names_its_encoding(folder: str) -> None:
    """Otherwise it is the locale's, which need not be UTF-8."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "encoding" not in {keyword.arg for keyword in node.keywords}:
                assert not _is_text(node), f"{path}:{node.lineno}"


def _is_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text."""
    if any(keyword.arg == "text" and isinstance(keyword.value, ast.Constant) for keyword in call.keywords):
        return True  # of a process
    modes = {"r", "w", "a", "x"}
    if isinstance(call.func, ast.Attribute):
        first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        return call.func.attr in ("read_text", "write_text") or (call.func.attr == "open" and first in modes)
    second = call.args[1].value if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) else "r"
    return isinstance(call.func, ast.Name) and call.func.id == "open" and second in modes


def test_environment_of_a_user_reaches_no_stage(tmp_path: Path) -> None:
    """What other installations need, such as ROS or the modules of a computing center, and a locale without UTF-8."""
    (tmp_path / "foreign/numpy").mkdir(parents=True)
    (tmp_path / "foreign/numpy/__init__.py").write_text("raise ImportError('too old')", encoding="utf-8")
    (tmp_path / "clone").mkdir()

    def change(values: dict[str, object]) -> None:
        only(values, "mnist_dense")
        values["datasets"]["mnist"]["classes"][0] = "零"  # type: ignore[index]

    clone = clone_of_work_tree(tmp_path / "clone", change)
    hostile = {"PYTHONPATH": str(tmp_path / "foreign"), "PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "2"}
    ascii_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(clone, "dvc", "repro", "preprocess@mnist", **hostile, **ascii_locale)
    assert done.returncode == 0, done.stdout + done.stderr


def test_clone_whose_git_writes_other_line_ends_is_the_same(tmp_path: Path) -> None:
    copy_work_tree(tmp_path / "source")
    commit(tmp_path / "source", "all")
    settings = ["-c", "core.autocrlf=true", "-c", "core.safecrlf=false"]
    assert run(tmp_path, "git", *settings, "clone", "-q", "source", "clone").returncode == 0
    clone = tmp_path / "clone"
    files = run(tmp_path / "source", "git", "ls-files", "-z").stdout.split("\0")
    assert [file for file in filter(None, files) if (clone / file).read_bytes() != (ROOT / file).read_bytes()] == []
    assert run(clone, "git", *settings, "status", "--porcelain").stdout == ""
    assert run(clone, "env", "-u", "MAKEFLAGS", "make", "--silent", "help").stdout.startswith("  make setup\t")
