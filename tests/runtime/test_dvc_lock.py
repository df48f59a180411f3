"""dvc.lock, read while another DVC rewrites it in place."""

import os
import threading
import time
from pathlib import Path

import pytest

from stages.runtime import dvc_lock

LOCK = "schema: '2.0'\nstages:\n" + "".join(
    f"  preprocess@{name}:\n    outs:\n    - path: data/records/{name}\n      md5: {md5 * 32}.dir\n"
    for name, md5 in (("a", "1"), ("b", "2"))
)


def write_slowly(path: Path, seconds: float) -> threading.Thread:
    """Truncate the file and write it again piece by piece, so that most pieces end within a line."""

    def write() -> None:
        with path.open("w", encoding="utf-8") as file:
            for start in range(0, len(LOCK), 9):
                time.sleep(seconds * 9 / len(LOCK))
                file.write(LOCK[start : start + 9])
                file.flush()

    thread = threading.Thread(target=write)
    thread.start()
    while path.read_text(encoding="utf-8") == LOCK and thread.is_alive():
        time.sleep(0.001)
    return thread


def test_output_hashes_wait_for_a_lock_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(LOCK, encoding="utf-8")
    thread = write_slowly(Path("dvc.lock"), 1.5)
    assert dvc_lock.output_hashes()["data/records/b"] == f"{'2' * 32}.dir"
    thread.join()
    assert "data/records/c" not in dvc_lock.output_hashes()


def test_read_gives_up_on_a_lock_that_stays_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_lock, "PATIENCE", 0.2)
    for content in (b"", b"stages: [", b"\xff", b"text"):
        (tmp_path / "dvc.lock").write_bytes(content)
        os.utime(tmp_path / "dvc.lock", (0, 0))
        assert dvc_lock.read(tmp_path / "dvc.lock") == {}


def test_read_without_a_lock_is_empty_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    assert dvc_lock.read(tmp_path / "dvc.lock") == {}
    assert time.monotonic() - start < 0.5
