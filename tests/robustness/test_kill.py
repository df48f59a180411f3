"""A pipeline that is killed at any moment ends, when it runs again, with the bytes of one that was not killed.

Takes minutes: a killed stage starts again, and imports TensorFlow again.
"""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    SECONDS,
    CopyFolder,
    clone_of_work_tree,
    commit,
    environment,
    only,
    outputs,
    reproduce,
    run,
    thirty_epochs,
    wait_for_queue,
)

Reference = tuple[Path, dict[str, float]]  # a clone, and the seconds of each stage


def log_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.log"


def start(folder: Path, target: str = "") -> subprocess.Popen[bytes]:
    """Start what `make repro` runs, in a process group of its own."""
    with log_of(folder).open("ab") as log:
        return subprocess.Popen(
            ["sh", "-c", f"python -m tools.lib.unlock && exec dvc repro {target}"],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def following(process: subprocess.Popen[bytes], log: Path, before: int) -> Iterator[str]:
    """Yield the stage that DVC runs, every 20 ms until DVC ends; an empty string before the first stage."""
    while process.poll() is None:
        with log.open("rb") as file:
            file.seek(before)
            yield next(iter(re.findall(r"Running stage '([^']+)'", file.read().decode())[::-1]), "")
        time.sleep(0.02)


def kill_at_random(folder: Path, took: dict[str, float], times: int, seed: int) -> Counter[str]:
    """Run `dvc repro` until it succeeds, and kill its process group on the way with SIGKILL and SIGTERM in turn.

    Args:
        folder: the clone's folder.
        took: the seconds of each stage; the kill comes at a random moment of them.
        times: the number of kills in each stage.
        seed: seeds the random moments.

    Returns:
        The number of kills in each stage.
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
            assert process.returncode == 0, log.read_text(encoding="utf-8")[-2000:]
            return hits
        process.wait()
        while alive(process.pid):  # after SIGTERM a stage needs time to end
            time.sleep(0.05)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def every_kind(values: Any) -> None:
    only(
        values, "mnist_cnn", "fashion_mnist_lenet", "cifar10_small_cnn_augmented", "imagenette_cnn", "imagenette_vgg16"
    )
    values["train"]["epochs"] = 3


def clone(folder: Path, change: Any) -> Path:
    """A clone without a dvc.lock, which lists stages that this pipeline does not have."""
    clone_of_work_tree(folder, change)
    (folder / "dvc.lock").unlink()
    return folder


@pytest.fixture(scope="module")
def uninterrupted(copy_reproduced: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The pipeline of one model, reproduced without kills, and the seconds of each stage."""
    folder = copy_reproduced(tmp_path_factory.mktemp("uninterrupted"))
    return folder, json.loads((folder / SECONDS).read_text(encoding="utf-8"))


def kill_and_compare(killed: Path, reference: Path, took: dict[str, float], times: int) -> Counter[str]:
    """Kill each stage `times` times and compare the outputs. Returns the number of kills in each stage."""
    hits = kill_at_random(killed, {stage: 0.8 * seconds for stage, seconds in took.items()}, times, seed=7)
    print(
        f"{hits.total()} kills:",
        ", ".join(f"{hits[stage]} in {stage or 'DVC before the first stage'}" for stage in took),
    )
    assert hits.keys() == took.keys()
    assert (killed / "dvc.lock").read_text(encoding="utf-8") == (reference / "dvc.lock").read_text(encoding="utf-8")
    files = [
        {str(path.relative_to(folder)) for part in ("data", "reports") for path in (folder / part).rglob("*")}
        for folder in (reference, killed)
    ]
    assert files[0] == files[1]
    assert run(killed, "dvc", "status", "--quiet").returncode == 0
    assert not [path for what in ("checkpoints", "extractions") for path in (killed / ".dvc/tmp" / what).glob("*")]
    return hits


def test_pipeline_killed_once_per_stage_ends_with_the_same_bytes(tmp_path: Path, uninterrupted: Reference) -> None:
    assert kill_and_compare(clone(tmp_path / "killed", thirty_epochs), *uninterrupted, times=1).total() >= 6


@pytest.mark.slow
def test_pipeline_with_every_kind_of_stage_killed_forty_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    reference, killed = (clone(tmp_path / name, every_kind) for name in ("reference", "killed"))
    assert kill_and_compare(killed, reference, reproduce(reference), times=2).total() >= 40


@pytest.mark.slow
def test_two_repros_at_once_and_a_queue_do_not_mix_outputs(tmp_path: Path, uninterrupted: Reference) -> None:
    """The second DVC waits for the locks of the first, or reports them."""
    target = "evaluate@mnist_dense"
    busy = clone(tmp_path / "busy", thirty_epochs)
    both = [start(busy, target), start(busy, target)]
    assert 0 in [process.wait() for process in both], log_of(busy).read_text(encoding="utf-8")[-2000:]
    commit(busy, "reproduced")
    assert run(busy, "dvc", "exp", "run", "--queue", "-S", "seed=1", target).returncode == 0
    assert run(busy, "dvc", "queue", "start").returncode == 0
    with (busy / "stages/models/dense.py").open("a", encoding="utf-8") as module:
        module.write("# a comment makes the training stale\n")
    assert start(busy, target).wait() == 0, log_of(busy).read_text(encoding="utf-8")[-2000:]
    assert wait_for_queue(busy) == ["Success"]
    expected = outputs(uninterrupted[0])
    assert outputs(busy) == {path: expected[path] for path in outputs(busy)}
    assert "data/predictions/mnist_dense.parquet" in outputs(busy)
