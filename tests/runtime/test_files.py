"""Outputs are whole or absent."""

import os
from pathlib import Path

import pytest

from stages.runtime.files import atomic_write, file_hash


def test_atomic_write_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out" / "metrics.json"
    with atomic_write(target) as part:
        part.write_text("old", encoding="utf-8")
    with pytest.raises(IsADirectoryError), atomic_write(target) as part:  # noqa: PT012 (the block has to fail half-way)
        part.write_text("half", encoding="utf-8")
        tmp_path.read_bytes()
    assert target.read_text(encoding="utf-8") == "old"
    target.with_name(".metrics.json.part").write_text("left by a killed process", encoding="utf-8")
    with atomic_write(target) as part:
        part.write_text("new", encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["metrics.json"]
    assert target.read_text(encoding="utf-8") == "new"


def make(path: Path, kind: str, content: str) -> None:
    """A file, a folder with a file, or a link to one of both."""
    if kind.startswith("link"):
        make(path.with_name("linked"), kind.removeprefix("link to "), content)
        path.symlink_to("linked")
    elif kind == "folder":
        path.mkdir()
        (path / "file").write_text(content, encoding="utf-8")
    else:
        path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize("before", ["file", "folder", "link to file", "link to folder"])
@pytest.mark.parametrize("after", ["file", "folder"])
def test_atomic_write_replaces_files_folders_and_links(tmp_path: Path, before: str, after: str) -> None:
    target = tmp_path / "target"
    make(target, before, "old")
    with atomic_write(target) as part:
        make(part, after, "new")
    assert (target / "file" if after == "folder" else target).read_text(encoding="utf-8") == "new"
    assert {path.name for path in tmp_path.iterdir()} <= {"target", "linked"}
    assert not target.is_symlink()


def test_atomic_write_never_removes_a_file_before_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a file moved before its bytes are on the disk."""
    steps: list[str] = []
    target = tmp_path / "target"
    target.write_text("old", encoding="utf-8")
    replace = os.replace

    def log_replace(*paths: Path) -> None:
        steps.append("replace")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", lambda file: steps.append(f"sync {target.read_text(encoding='utf-8')}"))
    monkeypatch.setattr(os, "replace", log_replace)
    with atomic_write(target) as part:
        part.write_text("new", encoding="utf-8")
    assert steps == ["sync old", "replace", "sync new"]


def test_file_hash_is_that_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_hash(tmp_path / "file", "md5") == "900150983cd24fb0d6963f7d28e17f72"
