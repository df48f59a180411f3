"""The supported platforms: Linux, macOS on Apple silicon, Windows through WSL."""

import ast

import pytest

from tests.conftest import ROOT

LINUX_ONLY = {"sched_getaffinity", "sched_setaffinity", "pidfd_open", "memfd_create", "posix_fadvise"}


@pytest.mark.parametrize("folder", ["stages", "tools"])
def test_code_calls_nothing_that_macos_lacks(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & LINUX_ONLY, path
