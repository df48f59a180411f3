"""Reuse of published files that lie in data/raw."""

from pathlib import Path

import pytest

from stages.data.real.reuse import reuse
from tests.data.mirror_server import BODY, mirror

MIRRORS = [mirror("http://127.0.0.1/missing", BODY[1:]), mirror("http://127.0.0.1/other", algorithm="md5")]


def test_file_of_an_earlier_run_is_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/one.h5").write_bytes(BODY)
    assert reuse(tmp_path / "one.h5", MIRRORS, tmp_path / "raw")
    assert (tmp_path / "one.h5").read_bytes() == BODY
    assert capsys.readouterr().out == f"one.h5: found in {tmp_path}/raw\n"


def test_corrupt_or_missing_file_is_not_reused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert not reuse(tmp_path / "one.h5", MIRRORS, tmp_path / "raw")
    (tmp_path / "raw/one.h5").write_bytes(BODY[:-1])
    assert not reuse(tmp_path / "one.h5", MIRRORS, tmp_path / "raw")
    assert not (tmp_path / "one.h5").exists()
