"""`make repro`: what `dvc repro` does, with independent stages at the same time.

`dvc repro` runs one stage after the other (github.com/treeverse/dvc/issues/755). But DVC holds the lock of the
repository only while it compares hashes, fills its cache and writes dvc.lock; while a command runs, a list of locks
protects the inputs and outputs of the stage. So here each stage has a process, which waits for the lock and does what
`dvc repro` does with the stage. The outputs and the entries of dvc.lock are those of `dvc repro`, to the byte.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial, reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dvc.dependency.param
import dvc.lock
from dvc.dependency.param import read_param_file
from dvc.dvcfile import PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.utils.serialize import load_path

from stages.config import params
from stages.config.schema import Params
from stages.runtime import limits, paths
from stages.runtime.cli import INTERRUPTED, run
from stages.runtime.errors import UserError
from stages.runtime.files import PARSE_ERRORS
from stages.runtime.numerics import NVIDIA
from tools.lib import lock_entries
from tools.lib.jobs import Jobs, blocked
from tools.lib.unlock import unlock

if TYPE_CHECKING:
    from dvc.stage import Stage

LOCK_TIMEOUT = 0.3  # seconds; a process that waits tries again after a sixth of it. DVC's own three seconds add up.

# What a stage is assumed to need: TensorFlow, and the records of a training, as loaded and as tensors; or Ray's client.
MEMORY = 3 << 29  # bytes, and
MEMORY_RATIO = 3  # times the size of the inputs
TRAIN = "train"  # or its decoded images, which are more if JPEG has made them small; with `engine: ray` on a node, and
MEMORY_ON_NODES = 1 << 29  # bytes here


def repro(jobs: str, targets: str) -> None:
    """Run what is stale of `targets`, names with spaces between, or of the whole pipeline if there are none.

    After a failure or Ctrl-C no stage starts. After a failure, those that run end first.

    Args:
        jobs: number of stages that run at the same time. Empty: as many as the cores have room for `threads` of
            params.yaml, but at least two; one on a machine with a GPU, whose memory two trainings would share.
        targets: names of stages.

    Raises:
        UserError: params.yaml is not valid, `jobs` is not a number, there is no such target, or a stage failed.
    """
    values = params.load() if paths.PARAMS.exists() else None
    jobs = jobs or str(1 if NVIDIA.exists() else max(2, limits.cores() // (values.threads if values else 2)))
    if not jobs.isdecimal() or int(jobs) < 1:
        raise UserError(f"JOBS: {jobs!r} is not a number of stages to run at the same time; set it to 2, for example")
    unlock()
    dvc.lock.DEFAULT_TIMEOUT = LOCK_TIMEOUT
    dvc.dependency.param.read_param_file = _read_params
    try:
        repo = Repo(_wait_for_lock=True)
        with lock_repo(repo):
            graph = get_active_graph(repo.index.graph)
            stages = {
                stage.addressing: stage
                for stage in plan_repro(graph, collect_stages(repo, targets.split() or [PROJECT_FILE]))
            }
            upstream = {name: {dep.addressing for dep in graph.successors(stage)} for name, stage in stages.items()}
            stale = _stale(stages, upstream)
    except DvcException as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    repo.state.close()  # an open connection to SQLite must not pass to other processes; each opens its own
    if not stale:
        print(f"nothing to do: {_count(stages)} up to date{_page()}")
        return
    plan = Plan({name: upstream[name] & {*stale} for name in stale}, int(jobs), limits.free_memory())
    needed_memory = cache(lambda name: _needed_memory(stages[name], values))
    begin = time.monotonic()
    if failed := _run_all(plan, {name: partial(_reproduce, repo, stages[name]) for name in stale}, needed_memory):
        raise UserError(f"{', '.join(failed)} failed; see above")
    print(f"done: {_count(stale)} in {_clock(begin)}{_page()}")
    if text := lock_entries.explain_changes():
        print(text)


def _stale(stages: "dict[str, Stage]", upstream: dict[str, set[str]]) -> list[str]:
    """The stages that changed, and those that depend on them, whose inputs may change."""
    stale: list[str] = []
    for name, stage in stages.items():
        try:
            changed = not upstream[name].isdisjoint(stale) or stage.changed()
        except (DvcException, OSError):  # its own process says what is wrong
            changed = True
        if changed:
            stale.append(name)
    return stale


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


def _run_all(plan: Plan, processes: Mapping[str, Callable[[], None]], needed_memory: Callable[[str], int]) -> list[str]:
    """Run all stages and return the names of those that failed. Ctrl-C interrupts them; a second one ends them."""
    failed: list[str] = []
    is_interrupted = False
    jobs = Jobs()
    begin = time.monotonic()
    started = 0
    while True:
        try:
            while not failed and not is_interrupted and (name := plan.start(needed_memory)):
                started += 1
                print(f"{name}: stage {started} of {len(processes)}, {_clock(begin)} so far", flush=True)
                jobs.start(name, processes[name])
            if not jobs.running:
                break
            for name, code in jobs.wait().items():
                plan.end(name, code == 0)
                if code:
                    failed.append(name)
                if code < 0:
                    print(f"{name}: killed by {signal.Signals(-code).name}", flush=True)
        except KeyboardInterrupt:
            jobs.send(signal.SIGTERM if is_interrupted else signal.SIGINT)
            is_interrupted = True
    if is_interrupted:
        sys.exit(INTERRUPTED)
    return failed


def _needed_memory(stage: "Stage", values: Params | None) -> int:
    kind, _, name = stage.addressing.partition("@")
    if kind == TRAIN and values and values.engine == "ray" and os.environ.get("RAY_ADDRESS"):
        return MEMORY_ON_NODES
    inputs = [Path(dep.fs_path) for dep in stage.deps]
    files = [file for path in inputs for file in (path, *path.rglob("*")) if file.is_file()]
    needed = MEMORY_RATIO * sum(file.stat().st_size for file in files)
    return MEMORY + max(needed, _decoded_size(name, values) if kind == TRAIN and values else 0)


def _decoded_size(name: str, values: Params) -> int:
    """Bytes of the images that the training of a model holds; 0 if its inputs are none, or there are no records."""
    with suppress(*PARSE_ERRORS):
        model = values.resolved_models[name]
        features, info = (
            json.loads((paths.records(model.dataset) / file).read_text(encoding="utf-8"))
            for file in ("features.json", "dataset_info.json")
        )
        *size, channels = features["featuresDict"]["features"]["input"]["image"]["shape"]["dimensions"]
        height, width = [model.image_size] * 2 if model.image_size else size
        image = int(height) * int(width) * int(channels)
        images = [sum(map(int, split["shardLengths"])) for split in info["splits"] if split["name"] != "test"]
        return sum(min(count * image, int(values.memory * 2**30)) for count in images)
    return 0


def _reproduce(repo: Repo, stage: "Stage") -> None:
    """Do with a stage what `dvc repro` does. Executed in a process of its own; a failure is its exit code."""
    try:
        with lock_repo(repo), repo.scm_context(quiet=True):  # it would say after each stage how to commit dvc.lock
            if stage.reproduce():
                with blocked():
                    lock_entries.write(stage)
    except (DvcException, OSError) as error:  # the latter from hashing and caching
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        sys.exit(f"ERROR: {' '.join(reason.split())}")


@cache
def _parse(path: str, fs: Any, mtime: int, size: int) -> Any:
    return load_path(path, fs)


def _read_params(fs: Any, path: str, key_paths: list[str] | None = None, flatten: bool = False) -> Any:
    """The params of a stage.

    DVC itself parses and searches all of params.yaml for each stage: most of the time of a run without work.
    """
    if flatten and key_paths:
        status = Path(path).stat()
        values = _parse(path, fs, status.st_mtime_ns, status.st_size)
        with suppress(KeyError, TypeError):
            return {key: reduce(getitem, key.split("."), values) for key in key_paths}
    return read_param_file(fs, path, key_paths, flatten)


def _count(stages: Any) -> str:
    return "1 stage" if len(stages) == 1 else f"{len(stages)} stages"


def _page() -> str:
    return f"; open {paths.PAGE}" if paths.PAGE.exists() else ""


def _clock(begin: float) -> str:
    """Minutes and seconds since a time of `time.monotonic`."""
    minutes, seconds = divmod(round(time.monotonic() - begin), 60)
    return f"{minutes}:{seconds:02}"


if __name__ == "__main__":
    run(repro, "jobs", "targets")
