"""A pipeline that is killed at any moment ends, when it is run again, with the bytes of one that never was.

Takes minutes: a stage that is killed starts again, and TensorFlow with it.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clone_of_work_tree, commit, only, outputs, run

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def log_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.log"


def start(folder: Path, target: str = "") -> subprocess.Popen[bytes]:
    """What `make repro` does, in a process group of its own."""
    with log_of(folder).open("ab") as log:
        return subprocess.Popen(
            ["sh", "-c", f"python -m tools.unlock && exec dvc repro {target}"],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def following(process: subprocess.Popen[bytes], log: Path, before: int) -> Iterator[str]:
    """Again and again, while it runs: the stage that DVC is at; none before the first one."""
    while process.poll() is None:
        with log.open("rb") as file:
            file.seek(before)
            yield next(iter(re.findall(r"Running stage '([^']+)'", file.read().decode())[::-1]), "")
        time.sleep(0.02)


def run_in_calm(folder: Path) -> dict[str, float]:
    """`dvc repro`: how many seconds each stage takes, with what DVC does until the next one."""
    begun: dict[str, float] = {}
    process = start(folder)
    for stage in following(process, log_of(folder), 0):
        begun.setdefault(stage, time.monotonic())
    assert process.returncode == 0, log_of(folder).read_text()[-2000:]
    ends = [*list(begun.values())[1:], time.monotonic()]
    return {stage: end - at for (stage, at), end in zip(begun.items(), ends, strict=True)}


def kill_at_random(folder: Path, took: dict[str, float], times: int, seed: int) -> Counter[str]:
    """Run `dvc repro` again and again until it ends well, and kill it on the way: SIGKILL and SIGTERM in turn, to all.

    Args:
        folder: of the clone.
        took: the seconds of each stage: it is killed at a random moment of them.
        times: how often in each stage.
        seed: of the moments.

    Returns:
        How often it was running, and killed, in each stage.
    """
    chance = random.Random(seed)
    log = log_of(folder)
    left, hits = Counter(dict.fromkeys(took, times)), Counter[str]()
    while True:
        before = log.stat().st_size if log.exists() else 0
        process = start(folder)
        at, moment = None, 0.0
        for stage in following(process, log, before):
            if stage != at:
                at = stage
                moment = time.monotonic() + (chance.uniform(0, took[stage]) if left[stage] else 3600)
            if time.monotonic() >= moment:
                os.killpg(process.pid, (signal.SIGKILL, signal.SIGTERM)[hits.total() % 2])
                left[stage] -= 1
                hits[stage] += 1
                break
        else:
            assert process.returncode == 0, log.read_text()[-2000:]
            return hits
        process.wait()
        while alive(process.pid):  # a stage that was asked to end takes its time
            time.sleep(0.05)


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


def clone(folder: Path, change: Any) -> Path:
    """A clone without a dvc.lock: it tells of stages that are not there."""
    clone_of_work_tree(folder, change)
    (folder / "dvc.lock").unlink()
    return folder


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The pipeline of one model, run in peace, and how long each stage took."""
    folder = clone(tmp_path_factory.mktemp("few") / "calm", few)
    return folder, run_in_calm(folder)


def killed_as_calm(killed: Path, calm: Path, took: dict[str, float], times: int) -> Counter[str]:
    """Kill so often in each stage, and compare; returns where it was."""
    hits = kill_at_random(killed, {stage: 0.8 * seconds for stage, seconds in took.items()}, times, seed=7)
    print(f"{hits.total()} kills:", ", ".join(f"{hits[stage]} in {stage or 'DVC, at first'}" for stage in took))
    assert hits.keys() == took.keys()
    assert (killed / "dvc.lock").read_text() == (calm / "dvc.lock").read_text()
    files = [
        {str(path.relative_to(folder)) for part in ("data", "reports") for path in (folder / part).rglob("*")}
        for folder in (calm, killed)
    ]
    assert files[0] == files[1]
    assert run(killed, "dvc", "status", "--quiet").returncode == 0
    assert not list((killed / ".dvc/tmp").glob("checkpoints/*"))
    return hits


def test_kills_change_nothing(tmp_path: Path, calm: tuple[Path, dict[str, float]]) -> None:
    """Once in every stage of a pipeline of one model, and before the first."""
    assert killed_as_calm(clone(tmp_path / "killed", few), *calm, times=1).total() >= 6


@pytest.mark.slow
def test_forty_kills_change_nothing(tmp_path: Path) -> None:
    """Twice in each stage of a pipeline with every kind of stage."""
    calm, killed = (clone(tmp_path / name, every_kind) for name in ("calm", "killed"))
    assert killed_as_calm(killed, calm, run_in_calm(calm), times=2).total() >= 40


def test_two_at_once_and_a_queue_beside_them(tmp_path: Path, calm: tuple[Path, dict[str, float]]) -> None:
    """DVC's locks hold: whoever comes second waits or says so, and nobody's outputs are mixed."""
    target = "evaluate@mnist_dense"
    busy = clone(tmp_path / "busy", few)
    both = [start(busy, target), start(busy, target)]
    assert 0 in [process.wait() for process in both], log_of(busy).read_text()[-2000:]
    commit(busy, "reproduced")
    assert run(busy, "dvc", "exp", "run", "--queue", "-S", "seed=1", target).returncode == 0
    assert run(busy, "dvc", "queue", "start").returncode == 0
    with (busy / "stages/models/dense.py").open("a") as module:
        module.write("# a comment: train it again\n")
    assert start(busy, target).wait() == 0, log_of(busy).read_text()[-2000:]
    while "Running" in (status := run(busy, "dvc", "queue", "status").stdout) or "Queued" in status:
        time.sleep(1)
    assert "Success" in status
    undisturbed = outputs(calm[0])
    assert outputs(busy) == {path: undisturbed[path] for path in outputs(busy)}
    assert "data/predictions/mnist_dense.parquet" in outputs(busy)
