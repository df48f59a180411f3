"""`make repro`: what `dvc repro` does, with independent stages at the same time.

`dvc repro` runs one stage after the other (github.com/treeverse/dvc/issues/755). But DVC holds the lock of the
repository only while it compares hashes, fills its cache and writes dvc.lock; while a command runs, a list of locks
protects the inputs and outputs of the stage. So here each stage has a process, which waits for the lock and does what
`dvc repro` does with the stage. The outputs and dvc.lock are those of `dvc repro`, to the byte.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import dvc.lock
import psutil
from dvc.dvcfile import PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

from stages.runtime import dvc_lock, paths
from stages.runtime.cli import INTERRUPTED, run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from tools.lib.jobs import Jobs, blocked

if TYPE_CHECKING:
    from dvc.stage import Stage

LOCK_TIMEOUT = 0.3  # seconds; a process that waits tries again after a sixth of it. DVC's own three seconds add up.
ORDER = Path(".dvc/tmp/repro_order.json")  # the entries of dvc.lock before a run that has not succeeded yet

# What a stage is assumed to need: TensorFlow, and the records of a training, as loaded and as tensors.
MEMORY = 3 << 29  # bytes, and
MEMORY_RATIO = 3  # times the size of the inputs


def repro(jobs: str, targets: str) -> None:
    """Run what is stale of `targets`, names with spaces between, or of the whole pipeline if there are none.

    After a failure or Ctrl-C no stage starts. After a failure, those that run end first.

    Raises:
        UserError: `jobs` is not a number, there is no such target, or a stage failed.
    """
    if not jobs.isdecimal() or int(jobs) < 1:
        raise UserError(f"JOBS: {jobs!r} is not a number of stages to run at the same time; set it to 2, for example")
    dvc.lock.DEFAULT_TIMEOUT = LOCK_TIMEOUT
    try:
        repo = Repo(_wait_for_lock=True)
        with lock_repo(repo):
            graph = get_active_graph(repo.index.graph)
            found = plan_repro(graph, collect_stages(repo, targets.split() or [PROJECT_FILE]))
    except DvcException as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    repo.state.close()  # an open connection to SQLite must not pass to other processes; each opens its own
    stages = {stage.addressing: stage for stage in found}
    upstream = {name: {dep.addressing for dep in graph.successors(stage)} for name, stage in stages.items()}
    plan = Plan(upstream, int(jobs), psutil.virtual_memory().available)
    with _interrupts() as interrupts, _order_of_one_job(repo, list(stages)):
        failed = _run_all(repo, stages, plan, interrupts)
        if interrupts:
            sys.exit(INTERRUPTED)
        if failed:
            raise UserError(f"{', '.join(failed)} failed; see above")


class Plan:
    """Which stage may start next, by the names of the stages."""

    def __init__(self, upstream: dict[str, set[str]], jobs: int, memory: int) -> None:
        """Plan the first run of all stages.

        Args:
            upstream: the stages that each stage depends on. All stages in the order in which one job runs them.
            jobs: number of stages that may run at the same time.
            memory: bytes for all of them.
        """
        self.upstream, self.jobs, self.memory = upstream, jobs, memory
        self.waiting = list(upstream)
        self.running: dict[str, int] = {}
        self.done: set[str] = set()

    def start(self, needed_memory: Callable[[str], int]) -> str | None:
        """Return the first stage that waits for no other and fits into the memory; one alone always fits.

        Args:
            needed_memory: returns the bytes that a stage will need. Called when its inputs exist.
        """
        ready = [name for name in self.waiting if self.upstream[name] <= self.done]
        for name in ready if len(self.running) < self.jobs else []:
            needed = needed_memory(name)
            if not self.running or sum(self.running.values()) + needed <= self.memory:
                self.waiting.remove(name)
                self.running[name] = needed
                return name
        return None

    def end(self, name: str, succeeded: bool) -> None:
        """Note that a stage has ended. Those that depend on it start only if it has succeeded."""
        del self.running[name]
        if succeeded:
            self.done.add(name)


def _run_all(repo: Repo, stages: "dict[str, Stage]", plan: Plan, interrupts: list[int]) -> list[str]:
    """Run all stages and return the names of those that failed."""
    failed: list[str] = []
    jobs = Jobs()
    # Asked five times a second about stages that do not fit, and their inputs may be folders of many files
    needed_memory = cache(lambda name: _needed_memory(stages[name]))
    sent = 0  # interrupts that were sent on
    while True:
        while not failed and not interrupts and (name := plan.start(needed_memory)):
            jobs.start(name, partial(_reproduce, repo, stages[name]))
        if len(interrupts) > sent:
            jobs.send(signal.SIGTERM if sent else signal.SIGINT)
            sent = len(interrupts)
        if not jobs.running:
            return failed
        for name, code in jobs.wait().items():
            plan.end(name, code == 0)
            if code:
                failed.append(name)
            if code < 0:
                print(f"{name}: killed by {signal.Signals(-code).name}", flush=True)


def _needed_memory(stage: "Stage") -> int:
    inputs = [Path(dep.fs_path) for dep in stage.deps]
    files = [file for path in inputs for file in (path, *path.rglob("*")) if file.is_file()]
    return MEMORY + MEMORY_RATIO * sum(file.stat().st_size for file in files)


def _reproduce(repo: Repo, stage: "Stage") -> None:
    """Do with a stage what `dvc repro` does. Executed in a process of its own; a failure is its exit code."""
    try:
        with lock_repo(repo), repo.scm_context(quiet=True):  # it would say after each stage how to commit dvc.lock
            if stage.reproduce():
                with blocked():  # DVC writes dvc.lock in place
                    stage.dump(update_pipeline=False)
    except (DvcException, OSError) as error:  # the latter from hashing and caching
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        sys.exit(f"ERROR: {' '.join(reason.split())}")


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Count Ctrl-C in the list, instead of raising KeyboardInterrupt, for the time of a block."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _order_of_one_job(repo: Repo, names: list[str]) -> Iterator[None]:
    """Give dvc.lock, after a block, the order of a run with one job: old entries first, then new ones as in `names`.

    DVC appends new entries in the order in which their stages end. If the block fails or is killed, the next run sorts
    what it left.
    """
    if not ORDER.exists():
        with atomic_write(ORDER) as part:
            part.write_text(json.dumps(list(dvc_lock.read().get("stages", {}))), encoding="utf-8")
    old = json.loads(ORDER.read_text(encoding="utf-8"))
    position = {name: number for number, name in enumerate([*old, *(name for name in names if name not in old)])}
    try:
        yield
    finally:
        with lock_repo(repo):
            _sort(position)
    ORDER.unlink()


def _sort(position: dict[str, int]) -> None:
    """Sort the entries of dvc.lock; those without a position come first."""
    text = paths.LOCK.read_text(encoding="utf-8") if paths.LOCK.exists() else ""
    lock = parse_yaml_for_update(text, paths.LOCK)
    stages = lock.get("stages", {})
    names = sorted(stages, key=lambda name: position.get(name, -1))
    if names != list(stages):
        for name in names:
            stages[name] = stages.pop(name)
        with atomic_write(paths.LOCK) as part:
            part.write_text(dumps_yaml(lock), encoding="utf-8")


if __name__ == "__main__":
    run(repro, "jobs", "targets")
