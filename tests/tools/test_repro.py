"""`make repro`: the outputs and the dvc.lock of `dvc repro`, after failures and kills, too."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dvc.dependency.param
import dvc.lock
import numpy as np
import psutil
import pytest

from stages.runtime import limits
from stages.runtime.cli import INTERRUPTED
from stages.runtime.errors import UserError
from tests.conftest import ROOT, CopyFolder, build_once, commit, environment, only, run, write_params
from tools.lib.lock_entries import split
from tools.run import repro as module
from tools.run.repro import Plan

NAMES = "abcdefgh"
# Each nap notes its process, waits for the others to do so if there is a file `together`, sleeps as long as the file
# `nap` says, and fails if there is a file fail-NAME.
DVC = """
stages:
  start:
    cmd: echo 1 > start
    outs: [start]
  nap:
    foreach: [a, b, c, d, e, f, g, h]
    do:
      cmd: >-
        echo $$ > pid-${item};
        while test -e together && test $(ls pid-* | wc -l) -lt 8; do sleep 0.1; done;
        sleep $(cat nap); test ! -e fail-${item} && echo ${item} > nap-${item}
      deps: [start]
      outs: ["nap-${item}"]
  end:
    cmd: cat nap-* > end
    deps: [nap-a, nap-b, nap-c, nap-d, nap-e, nap-f, nap-g, nap-h]
    outs: [end]
"""


@pytest.fixture(scope="module")
def copy_project(tmp_path_factory: pytest.TempPathFactory) -> CopyFolder:
    """Copies a project whose naps take no time."""

    def build(folder: Path) -> None:
        for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
            assert run(folder, *command).returncode == 0
        (folder / "dvc.yaml").write_text(DVC, encoding="utf-8")
        (folder / "nap").write_text("0", encoding="utf-8")

    return build_once(tmp_path_factory, "naps", build)


@pytest.fixture
def folder(copy_project: CopyFolder, tmp_path: Path) -> Path:
    return copy_project(tmp_path)


@pytest.fixture(scope="module")
def serial(copy_project: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The entries of dvc.lock after `dvc repro`."""
    folder = copy_project(tmp_path_factory.mktemp("serial"))
    assert run(folder, "dvc", "repro").returncode == 0
    return entries(folder)


def entries(folder: Path) -> dict[str, str]:
    return split((folder / "dvc.lock").read_text(encoding="utf-8"))[1]


def start(folder: Path, jobs: int, targets: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.run.repro", str(jobs), targets],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def reproduce(folder: Path, jobs: int, targets: str = "") -> tuple[int, str, str]:
    process = start(folder, jobs, targets)
    output, error = process.communicate(timeout=120)
    return process.returncode, output, error


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(folder: Path, name: str) -> bool:
    """Whether the shell of a nap still runs."""
    try:
        return (
            psutil.Process(int((folder / f"pid-{name}").read_text(encoding="utf-8"))).status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def napping(folder: Path, *names: str) -> bool:
    return all(
        (folder / f"pid-{name}").exists() and (folder / f"pid-{name}").read_text(encoding="utf-8") for name in names
    )


def test_eight_stages_run_at_the_same_time_and_give_the_lock_of_dvc_repro(folder: Path, serial: dict[str, str]) -> None:
    (folder / "together").touch()
    code, output, error = reproduce(folder, jobs=8)
    assert (code, error) == (0, "")
    assert re.search(r"^nap@a: stage [2-9] of 10, 0:\d\d so far$", output, re.MULTILINE)
    assert re.fullmatch(r"done: 10 stages in 0:\d\d", output.splitlines()[-1])
    assert entries(folder) == serial
    assert (folder / "end").read_text(encoding="utf-8") == "".join(f"{name}\n" for name in NAMES)
    code, output, error = reproduce(folder, jobs=2)
    assert (code, error, output) == (0, "", "nothing to do: 10 stages up to date\n")


def test_targets_are_all_that_runs(folder: Path) -> None:
    assert reproduce(folder, 2, "nap@b nap@g")[0] == 0
    assert sorted(path.name for path in folder.glob("nap-*")) == ["nap-b", "nap-g"]


def test_failed_stage_lets_others_end_and_the_next_run_gives_the_same_lock(
    folder: Path, serial: dict[str, str]
) -> None:
    (folder / "nap").write_text("0.5", encoding="utf-8")
    (folder / "fail-a").touch()
    code, output, error = reproduce(folder, jobs=3)
    assert (code, error) == (1, "error: nap@a failed; see above\n")
    assert "nap@a: ERROR: failed to run: " in output and "Traceback" not in output
    done = sorted(path.name for path in folder.glob("nap-*"))
    assert {"nap-b", "nap-c"} <= {*done} and "nap-h" not in done and not (folder / "end").exists()
    assert all(f"  {name.replace('-', '@')}:\n" in (folder / "dvc.lock").read_text(encoding="utf-8") for name in done)
    (folder / "fail-a").unlink()
    assert reproduce(folder, jobs=3)[0] == 0
    assert entries(folder) == serial


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGKILL, -9, ""), (signal.SIGTERM, -15, ""), (signal.SIGINT, 1, f"{INTERRUPTED}\n")],
)
def test_killed_run_ends_its_stages_and_the_next_run_gives_the_same_lock(
    folder: Path, serial: dict[str, str], number: signal.Signals, code: int, message: str
) -> None:
    (folder / "nap").write_text("60", encoding="utf-8")
    process = start(folder, jobs=2)
    wait(lambda: napping(folder, "a", "b"))
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == message
    assert process.returncode == code
    wait(lambda: not alive(folder, "a") and not alive(folder, "b"))
    assert not list(folder.glob("nap-*"))
    (folder / "nap").write_text("0", encoding="utf-8")
    wait(lambda: reproduce(folder, jobs=8)[0] == 0)  # DVC waits for the end of processes that nobody has reaped yet
    assert entries(folder) == serial


def test_killed_process_of_a_stage_ends_its_command(folder: Path) -> None:
    (folder / "nap").write_text("60", encoding="utf-8")
    process = start(folder, 2, "nap@a")
    wait(lambda: napping(folder, "a"))
    psutil.Process(process.pid).children()[0].kill()
    output, error = process.communicate(timeout=60)
    assert output.endswith("nap@a: killed by SIGKILL\n")
    assert (process.returncode, error) == (1, "error: nap@a failed; see above\n")
    wait(lambda: not alive(folder, "a"))


def test_mistake_is_one_line(folder: Path) -> None:
    for jobs, targets, message in (
        ("two", "", "JOBS: 'two' is not a number of stages to run at the same time; set it to 2, for example"),
        ("2", "nap@z", "dvc.yaml: Stage 'nap@z' not found inside 'dvc.yaml' file"),
    ):
        done = run(folder, sys.executable, "-m", "tools.run.repro", jobs, targets, PYTHONPATH=str(ROOT))
        assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def test_file_that_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    text = (folder / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(text.replace("outs: [start]", "deps: [loop]\n    outs: [start]"), encoding="utf-8")
    code, output, error = reproduce(folder, 2, "start")
    assert code == 1
    assert "Traceback" not in output + error
    assert "loop" in output + error


def test_outputs_that_are_not_the_committed_ones_are_explained(folder: Path) -> None:
    """As on a machine that computes other bits with the same code and params."""
    (folder / "dvc.yaml").write_text(
        "stages: {a: {cmd: cat bits > reports/a, deps: [code], outs: [{reports/a: {cache: false}}]}}",
        encoding="utf-8",
    )
    (folder / "reports").mkdir()
    (folder / ".gitignore").write_text("bits\nnap\n", encoding="utf-8")

    def reproduce_with(bits: str, code: str) -> str:
        (folder / "bits").write_text(bits, encoding="utf-8")
        (folder / "code").write_text(code, encoding="utf-8")
        (folder / "reports/a").unlink(missing_ok=True)
        returned, output, error = reproduce(folder, 1)
        assert (returned, error) == (0, "")
        return output.splitlines()[-1]

    assert reproduce_with("1", "").startswith("done: ")
    commit(folder, "reproduced")
    assert reproduce_with("1", "").startswith("done: ")
    assert reproduce_with("2", "").startswith("dvc.lock and 1 other files in Git are not the committed ones, although ")
    assert reproduce_with("3", "changed").startswith("done: ")


def test_plan_counts_decoded_images_and_the_threads_of_each_stage(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.data import writer

    def change(values: Any) -> None:
        only(values, "imagenette_cnn", "mnist_dense")
        values["threads"], values["memory"] = 4, 0.5  # 512 MiB, less than the training split takes
        values["models"]["imagenette_cnn"]["image_size"] = 2048  # 12 MiB for each image

    write_params(project, change)
    for number, name in enumerate(["mnist", "imagenette"]):
        pixels = np.zeros((28, 28, 3 if number else 1), np.uint8)
        sizes = {"train": 60, "validation": 20, "test": 20}
        examples = [(split, str(image), pixels, 0) for split, size in sizes.items() for image in range(size)]
        writer.write(name, ["a"], list(sizes), examples)
    (project / "dvc.yaml").write_text(
        "stages: {train: {foreach: {mnist_dense: mnist, imagenette_cnn: imagenette}, "
        "do: {cmd: 'true', deps: ['data/records/${item}'], outs: ['${key}']}}}",
        encoding="utf-8",
    )
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert run(project, *command).returncode == 0
    plans: list[tuple[int, int, int]] = []

    def note(plan: Plan, _: Any, needed: Callable[[str], int]) -> list[str]:
        plans.append((plan.jobs, needed("train@mnist_dense"), needed("train@imagenette_cnn")))
        return ["all"]

    monkeypatch.setattr(module, "_run_all", note)
    for place, name in ((dvc.lock, "DEFAULT_TIMEOUT"), (dvc.dependency.param, "read_param_file")):
        monkeypatch.setattr(place, name, getattr(place, name))  # restores what `repro` sets
    monkeypatch.setattr(module, "NVIDIA", project / "none")
    for cores in (4, 16):
        monkeypatch.setattr(limits, "cores", lambda cores=cores: cores)
        with pytest.raises(UserError):
            module.repro("", "")
    assert [jobs for jobs, *_ in plans] == [2, 4]
    small, decoded = plans[0][1:]
    assert module.MEMORY < small < module.MEMORY + 2**20
    assert decoded - module.MEMORY == (512 + 20 * 12) * 2**20


def test_plan_starts_in_order_what_fits_into_the_memory_and_alone_what_does_not() -> None:
    sizes = {"first": 4, "large": 20, "small": 5, "smaller": 1, "last": 1}
    upstream: dict[str, set[str]] = {name: set() for name in sizes}
    upstream["last"] = {"first", "large"}
    plan = Plan(upstream, jobs=3, memory=10)
    assert [plan.start(sizes.__getitem__) for _ in range(4)] == ["first", "small", "smaller", None]
    plan.end("first", succeeded=True)
    plan.end("small", succeeded=True)
    assert plan.start(sizes.__getitem__) is None
    plan.end("smaller", succeeded=True)
    assert [plan.start(sizes.__getitem__) for _ in range(2)] == ["large", None]
    plan.end("large", succeeded=False)
    assert plan.start(sizes.__getitem__) is None
