"""Runs tasks on the nodes of the Ray cluster. What they read and write passes through no other process.

A node that sees the project's folder, at the same path, reads and writes there. To any other node Ray sends the files
of a task, and back the file that it wrote. This process only says who does what, and gives whole files their names.
"""

import os
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages.cluster.connect import amounts, connected
from stages.runtime.errors import UserError
from stages.runtime.files import remove
from stages.runtime.tasks import Function, Result, Task

LOSSES = 5  # processes lost for each one of the pool: that is not the fault of a node

Files = dict[str, np.ndarray]  # contents by paths: Ray reads an array where another process has put it, without a copy


def run_on_nodes(
    tasks: Sequence[Task],
    factory: Callable[[], Function],
    inputs: Sequence[Path] = (),
    cpus: int = 1,
    gpus: bool = False,
) -> Generator[tuple[Task, Result]]:
    """Connect to Ray and run tasks in a pool of processes; yield each and its result when its file is whole.

    A process works on one task, and has the next one already unless few are left. If it is lost with its node,
    another one starts its tasks again: what the lost one wrote, or still writes, has a name of its own.

    Args:
        tasks: at least one. They write to the same folder, which exists, and may run in any order.
        factory: called in each process; it returns the function for the tasks.
        inputs: files that the factory reads.
        cpus: processor cores that a process uses. There are as many processes as the processors of the cluster allow,
        gpus: or one for each GPU of the cluster, if it has any.

    Raises:
        UserError: as `connected`; or that the function or the factory raised; or the processes end again and again.
    """
    folder = tasks[0].output.parent
    with connected(), _token(folder) as token:
        import ray
        from ray.exceptions import ObjectLostError, RayActorError

        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        read = ray.remote(num_cpus=0, label_selector=here)(_read_files)
        size, resources = _pool(cpus, gpus)
        start = partial(ray.remote(**resources)(_Worker).remote, Path.cwd(), token, read, factory, inputs)
        size = min(size, len(tasks))
        waiting, losses = deque(tasks), 0
        busy: dict[Any, tuple[Any, Task | None, Path]] = {}

        def add_worker() -> None:
            worker: Any = start()
            busy[worker.ready.remote()] = worker, None, folder

        def is_busy(worker: Any) -> bool:
            return any(other is worker for other, *_ in busy.values())

        def give_task(worker: Any) -> None:
            task = waiting.popleft()
            part = folder / f".{task.output.name}.{uuid.uuid4().hex}.part"
            busy[worker.run.remote(task, part)] = worker, task, part

        for _ in range(size):
            add_worker()
        while any(task for _, task, _ in busy.values()) or waiting:
            (reference,), _ = ray.wait(list(busy), num_returns=1)
            worker, task, part = busy.pop(reference)
            try:
                result, content = ray.get(reference)
            except (RayActorError, ObjectLostError):
                losses += 1
                if losses > LOSSES * size:
                    raise UserError(
                        f"{task.output if task else folder}: {losses} processes of the cluster ended before they were "
                        "done; give its nodes more memory"
                    ) from None
                if task:
                    waiting.appendleft(task)
                if not is_busy(worker):
                    add_worker()  # it waits for a node that has room
                continue
            if isinstance(result, UserError):
                raise result
            if waiting and not is_busy(worker):
                give_task(worker)
            if len(waiting) > size:
                give_task(worker)
            del worker  # without a task, it ends: a process that waits for a node gets its room
            if task:
                if content is not None:
                    content.tofile(part)
                os.replace(part, task.output)
                yield task, result
    for path in folder.glob(".*.part"):  # of lost processes
        remove(path)


@contextmanager
def _token(folder: Path) -> Iterator[tuple[Path, str]]:
    """A file by which a process can tell whether it sees this folder: no other has its content."""
    path, content = folder.absolute() / ".token", uuid.uuid4().hex
    path.write_text(content, encoding="utf-8")
    try:
        yield path, content
    finally:
        path.unlink(missing_ok=True)


def _pool(cpus: int, gpus: bool) -> tuple[int, dict[str, Any]]:
    """How many processes there is room for, and what each of them takes."""
    if gpus and (number := sum(amounts("GPU"))):
        return number, {"num_gpus": 1}
    sizes = amounts("CPU")
    cpus = min(cpus, *filter(None, sizes), cpus)
    # At least one, which waits for a node if there is none with a processor yet
    return max(1, sum(size // cpus for size in sizes)), {"num_cpus": cpus}


def _read_files(paths: Sequence[Path], folder: Path) -> Files:
    """Read files on the node where the project is."""
    return {str(path): np.fromfile(folder / path, np.uint8) for path in paths}


class _Worker:
    """A process of the pool."""

    def __init__(
        self,
        project: Path,
        token: tuple[Path, str],
        read: Any,
        factory: Callable[[], Function],
        inputs: Sequence[Path],
    ) -> None:
        self._project, self._read = project, read
        path, content = token
        self._sees_project = path.exists() and path.read_text(encoding="utf-8") == content
        self._error: UserError | None = None
        try:
            with self._files(inputs):
                self._function = factory()
        except UserError as error:
            self._error = error

    def ready(self) -> tuple[UserError | bool, None]:
        """Return whether this process sees the project's folder."""
        return self._error or self._sees_project, None

    def run(self, task: Task, path: Path) -> tuple[Result | UserError, np.ndarray | None]:
        """Run a task that writes to `path`; return its result, and the file if it is not where it belongs.

        A UserError is a result, too: Ray would wrap it in an error of its own.
        """
        try:
            with self._files(task.inputs):
                if not self._sees_project:
                    path.parent.mkdir(parents=True, exist_ok=True)
                result = self._function(task.argument, path)
                if not self._sees_project:
                    return result, np.fromfile(path, np.uint8)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                return result, None
        except UserError as error:
            return error, None

    @contextmanager
    def _files(self, paths: Sequence[Path]) -> Iterator[None]:
        """Change to the project's folder, or to one that has copies of these files."""
        import ray

        before = os.getcwd()
        try:
            if self._sees_project:
                os.chdir(self._project)
                yield
                return
            files = ray.get(self._read.remote(paths, self._project))
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                for name, content in files.items():
                    Path(name).parent.mkdir(parents=True, exist_ok=True)
                    content.tofile(name)
                del files
                yield
        finally:
            os.chdir(before)
