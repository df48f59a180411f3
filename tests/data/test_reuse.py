"""Reuse of published files that lie in data/raw or in DVC's cache."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from stages.data.real.reuse import reuse
from tests.data.mirror_server import BODY, mirror

MIRRORS = [mirror("http://127.0.0.1/missing", BODY[1:]), mirror("http://127.0.0.1/other", algorithm="md5")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a DVC repository that is the working directory, at a place of its own."""
    (tmp_path / "repository/.dvc").mkdir(parents=True)
    (tmp_path / "repository/.dvc/config").write_text(
        f"[core]\n    no_scm = True\n[cache]\n    dir = {tmp_path / 'cache'}\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "cache/files/md5"


def add(cache: Path, body: bytes, name: str = "one.h5", content: bytes | None = None) -> Path:
    """Add a folder with one file to DVC's cache; `content` instead of `body` if the cache is corrupt."""
    listing = json.dumps([{"md5": hashlib.md5(body).hexdigest(), "relpath": name}]).encode()
    for data, suffix in ((listing, ".dir"), (body, "")):
        md5 = hashlib.md5(data).hexdigest()
        path = cache / md5[:2] / f"{md5[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if suffix or content is None else content)
    return path


def test_file_in_the_cache_with_a_published_hash_is_linked(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever mirror has the hash, and whatever else the cache holds under this name."""
    add(cache, b"another version")
    there = add(cache, BODY)
    assert reuse(Path("one.h5"), MIRRORS, Path("data/raw/net"))
    assert Path("one.h5").samefile(there)
    assert capsys.readouterr().out == "one.h5: found in DVC's cache\n"


def test_file_in_the_cache_is_copied_where_links_are_impossible(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    there = add(cache, BODY)
    monkeypatch.setattr(os, "link", fail)
    assert reuse(Path("one.h5"), MIRRORS, Path("data/raw/net"))
    assert Path("one.h5").read_bytes() == BODY
    assert not Path("one.h5").samefile(there)


def test_corrupt_or_missing_file_in_the_cache_is_not_reused(cache: Path) -> None:
    assert not reuse(Path("one.h5"), MIRRORS, Path("data/raw/net"))
    add(cache, BODY, content=BODY[:-1])
    assert not reuse(Path("one.h5"), MIRRORS, Path("data/raw/net"))
    add(cache, BODY).unlink()
    assert not reuse(Path("one.h5"), MIRRORS, Path("data/raw/net"))
    assert not Path("one.h5").exists()


def test_corrupt_listings_in_the_cache_are_skipped(cache: Path) -> None:
    add(cache, BODY)
    (cache / "00").mkdir(exist_ok=True)
    for number, listing in enumerate([b"", b"{}", b"[1]", b"\xff", b'[{"md5": "0"}]']):
        (cache / "00" / f"{number:030}.dir").write_bytes(listing)
    assert reuse(Path("one.h5"), MIRRORS, Path("data/raw/net"))


def test_file_of_an_earlier_run_is_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where there is no DVC repository."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/one.h5").write_bytes(BODY)
    assert reuse(tmp_path / "one.h5", MIRRORS, tmp_path / "raw")
    assert (tmp_path / "one.h5").read_bytes() == BODY
    assert capsys.readouterr().out == f"one.h5: found in {tmp_path}/raw\n"


def test_without_a_repository_nothing_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not reuse(Path("one.h5"), MIRRORS, Path("raw"))
