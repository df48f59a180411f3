"""Progress on a terminal, and in a log."""

import fcntl
import os
import pty
import struct
import sys
import termios
import time

import pytest

from stages.runtime.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test advances: the time in seconds, as the only element."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def work(clock: list[float], seconds: float, items: int, **options: object) -> None:
    """Work on items that take so many seconds each."""
    for _ in progress(range(items), description="imagenette", unit="images", **options):  # type: ignore[arg-type]
        clock[0] += seconds


def test_log_gets_a_line_every_30_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 0.25, 400, total=13_394)
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.splitlines() == [
        "imagenette:   1% 120/13394 [00:30<55:18,  4.00 images/s]",
        "imagenette:   2% 240/13394 [01:00<54:48,  4.00 images/s]",
        "imagenette:   3% 360/13394 [01:30<54:18,  4.00 images/s]",
    ]


def test_log_gets_nothing_of_short_work(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 1, 29, total=29)
    assert capsys.readouterr().err == ""


def test_bytes_are_shown_as_megabytes(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress([bytes(2_000_000)] * 3, 90_000_000, "a.tgz", "B", size=len, initial=50_000_000):
        clock[0] += 20
    assert capsys.readouterr().err == "a.tgz:  60% 54.0M/90.0M [00:40<06:00, 100kB/s]\n"


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    # tqdm draws nothing on a terminal without a width: 24 lines, 100 columns.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    os.set_blocking(ours, False)
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert list(progress(range(3), 3, "imagenette", "images")) == [0, 1, 2]
        shown, deadline = b"", time.monotonic() + 20
        while b"3/3" not in shown and time.monotonic() < deadline:
            shown += screen.read(4096) or b""  # the system delivers it in pieces
    assert b"imagenette:   0%|" in shown
    assert b"3/3" in shown
