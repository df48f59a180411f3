"""Processes that work together: what becomes of all when one of them ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stages.cluster import gang
from stages.cluster.gang import ATTEMPTS, run_gang
from stages.runtime.errors import UserError
from tests.conftest import ROOT


def worker_number() -> int:
    return int(json.loads(os.environ["TF_CONFIG"])["task"]["index"])


def count(marks: Path, killed: int, at: int, times: int) -> Iterator[tuple[int, int]]:
    """Yield (number, pid) from 1 to 4; worker `killed` kills itself before number `at`, the first `times` times."""
    for number in range(1, 5):
        deaths = len(list(marks.iterdir()))
        if worker_number() == killed and number == at and deaths < times:
            (marks / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield number, os.getpid()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def test_gang_yields_what_its_chief_yields_and_leaves_no_process(marks: Path) -> None:
    items = list(run_gang(count, (marks, -1, 0, 0), 3))
    assert [number for number, _ in items] == [1, 2, 3, 4]
    assert len({pid for _, pid in items} - {os.getpid()}) == 1
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_gang_begins_again_without_repeating_items_when_its_chief_is_killed(
    marks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = list(run_gang(count, (marks, 0, 3, 2), 2))
    assert [number for number, _ in items] == [1, 2, 3, 4]
    assert items[1][1] != items[2][1]
    assert capsys.readouterr().out == 2 * (
        "worker 1 of 2 was killed; all workers start again from the last checkpoint\n"
    )


def test_gang_whose_chief_is_always_killed_is_one_line(marks: Path) -> None:
    with pytest.raises(UserError, match=r"^worker 1 of 2 was killed, 3 times in a row; run the stage again"):
        list(run_gang(count, (marks, 0, 2, 99), 2))
    assert len(list(marks.iterdir())) == ATTEMPTS


def fail(kind: str) -> Iterator[int]:
    if worker_number() == 1:
        raise UserError("the file is corrupt") if kind == "user" else ValueError("a bug")
    yield 1
    time.sleep(60)


def test_error_of_any_worker_ends_the_gang(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^the file is corrupt$"):
        list(run_gang(fail, ("user",), 2))
    with pytest.raises(RuntimeError, match=r"(?s)^worker 2 of 2 failed:\nTraceback.*ValueError: a bug"):
        list(run_gang(fail, ("bug",), 2))
    assert capfd.readouterr().err == ""


def wait_for_ever() -> Iterator[int]:
    yield os.getpid()
    time.sleep(600)


PARENT = """
from stages.cluster.gang import run_gang
from stages.runtime.cli import guard
from tests.cluster.test_gang import wait_for_ever
guard(lambda: [print(pid, flush=True) for pid in run_gang(wait_for_ever, (), 2)])
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_gang_ends_with_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        workers = psutil.Process(process.pid).children()
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches the group
        _, errors = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert len(workers) >= 2 and not alive
    assert "Traceback" not in errors


@pytest.mark.parametrize(("visible", "gpus"), [("", []), ("-1", []), ("1,0", ["1", "0"]), ("2,-1,0", ["2"])])
def test_gpus_are_those_that_cuda_sees(monkeypatch: pytest.MonkeyPatch, visible: str, gpus: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gang._visible_gpus() == gpus


def test_workers_that_outnumber_the_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match=r"^params.yaml: distribution: 4 workers need a GPU each, and .* has 2"):
        run_gang(wait_for_ever, (), 4)
