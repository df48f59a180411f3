"""A pipeline that is killed at any moment ends, when it is run again, with the bytes of one that never was.

Takes minutes: a stage that is killed starts again, and TensorFlow with it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clone_of_work_tree, commit, only, outputs, run

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def start(folder: Path) -> subprocess.Popen[bytes]:
    """What `make repro` does, in a process group of its own."""
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            ["sh", "-c", "python -m tools.unlock && exec dvc repro"],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill_at_random(folder: Path, kills: int, longest: float, seed: int) -> None:
    """Run `dvc repro` until it ends well, with so many kills on the way: SIGKILL and SIGTERM in turn, to all of it."""
    chance = random.Random(seed)
    for number in range(kills):
        process = start(folder)
        try:
            process.wait(chance.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, (signal.SIGKILL, signal.SIGTERM)[number % 2])
            process.wait()
        else:
            assert process.returncode == 0, (folder.parent / f"{folder.name}.log").read_text()[-2000:]
        while alive(process.pid):  # a stage that was asked to end takes its time
            time.sleep(0.05)
    assert start(folder).wait() == 0, (folder.parent / f"{folder.name}.log").read_text()[-2000:]


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def few(values: Any) -> None:
    only(values, "mnist_dense")
    values["train"]["epochs"] = 30


def every_kind(values: Any) -> None:
    only(
        values, "mnist_cnn", "fashion_mnist_lenet", "cifar10_small_cnn_augmented", "imagenette_cnn", "imagenette_vgg16"
    )
    values["train"]["epochs"] = 3


@pytest.mark.parametrize(
    ("change", "kills", "longest"),
    [(few, 6, 20.0), pytest.param(every_kind, 40, 60.0, marks=pytest.mark.slow)],
    ids=["six", "forty"],
)
def test_kills_change_nothing(tmp_path: Path, change: Any, kills: int, longest: float) -> None:
    """Forty kills, in every stage, take half an hour; six in a pipeline of one model two minutes."""
    clones = [tmp_path / "calm", tmp_path / "killed"]
    for clone in clones:
        clone_of_work_tree(clone, change)
        (clone / "dvc.lock").unlink()  # it tells of stages that are not there
    assert start(clones[0]).wait() == 0
    kill_at_random(clones[1], kills, longest, seed=7)
    assert (clones[1] / "dvc.lock").read_text() == (clones[0] / "dvc.lock").read_text()
    files = [
        {str(path.relative_to(clone)) for part in ("data", "reports") for path in (clone / part).rglob("*")}
        for clone in clones
    ]
    assert files[0] == files[1]
    assert run(clones[1], "dvc", "status", "--quiet").returncode == 0
    assert not list((clones[1] / ".dvc/tmp").glob("checkpoints/*"))


def test_two_at_once_and_a_queue_beside_them(tmp_path: Path) -> None:
    """DVC's locks hold: whoever comes second waits or says so, and nobody's outputs are mixed."""
    calm, busy = (clone_of_work_tree(tmp_path / name, few) for name in ("calm", "busy"))
    assert start(calm).wait() == 0
    both = [start(busy), start(busy)]
    assert 0 in [process.wait() for process in both], (tmp_path / "busy.log").read_text()[-2000:]
    commit(busy, "reproduced")
    assert run(busy, "dvc", "exp", "run", "--queue", "-S", "seed=1").returncode == 0
    assert run(busy, "dvc", "queue", "start").returncode == 0
    with (busy / "stages/models/dense.py").open("a") as module:
        module.write("# a comment: train it again\n")
    assert start(busy).wait() == 0, (tmp_path / "busy.log").read_text()[-2000:]
    while "Running" in (status := run(busy, "dvc", "queue", "status").stdout) or "Queued" in status:
        time.sleep(1)
    assert "Success" in status
    assert outputs(busy) == outputs(calm)
