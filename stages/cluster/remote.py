"""Runs functions on nodes of the Ray cluster, which get the files that they read and send those that they write."""

import os
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stages.cluster.connect import amounts, connected
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.tasks import Function, Result, Task

LOSSES = 5  # how often a task is repeated whose process was lost: if that is more, it is not the fault of a node

Item = TypeVar("Item")
Inputs = dict[str, Any]  # references to the contents of files by their paths


def run_on_nodes(
    tasks: Sequence[Task], factory: Callable[[], Function], inputs: Iterable[Path], cpus: int
) -> Generator[tuple[Task, Result]]:
    """Run tasks in processes on all nodes; yield each and its result when its file is whole, in any order.

    Args:
        tasks: what to run; a process has its next task already while it works on one.
        factory: returns the function for the tasks; each process calls it once.
        inputs: files that the factory reads.
        cpus: processor cores that a process reserves if the cluster has no GPU.

    Raises:
        UserError: no cluster answers, the function or the factory raised it, or a task was lost again and again.
    """
    with connected():
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

        lost = NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError
        resources, slots = _resources(cpus)
        task_on_node = ray.remote(max_calls=0, max_retries=LOSSES, **resources)(_run_task)
        loading = uuid.uuid4().hex, factory, _put(inputs)
        waiting, running = deque(tasks), dict[Any, Task]()
        while waiting or running:
            while waiting and len(running) < 2 * slots:
                task = waiting.popleft()
                running[task_on_node.remote(*loading, task, _put(task.inputs))] = task
            (reference,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(reference)
            try:
                result, content = ray.get(reference)
            except lost:
                raise UserError(
                    f"{task.output}: its process on the cluster ended {LOSSES + 1} times before it was done; give the "
                    "nodes more memory"
                ) from None
            if isinstance(result, UserError):
                raise result
            with atomic_write(task.output) as part:
                part.write_bytes(content)
            yield task, result


def run_remotely(
    function: Callable[..., Iterator[Item]],
    arguments: tuple[Any, ...],
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    all_gpus: bool,
    cpus: int,
) -> Iterator[Item]:
    """Run `function(*arguments)` on a node.

    If the node is lost, Ray starts the function again on another one; no item is yielded twice.

    Args:
        function: a generator function of a module of stages/; Ray sends its name.
        arguments: values for the function that pickle can store.
        inputs: files and folders that are copied to the node. Like the outputs, relative to the working directory.
        outputs: files that are copied back, each whole or not at all.
        all_gpus: use all GPUs of a node instead of one.
        cpus: processor cores to reserve if the cluster has no GPU.

    Yields:
        What the function yields. The outputs exist after the last item.

    Raises:
        UserError: no cluster answers, or the function raised it.
    """
    paths = [str(path) for path in outputs]
    with connected():
        import ray

        resources, _ = _resources(cpus, all_gpus)
        # A new process, as without Ray: Keras numbers the layers that a process creates
        task = ray.remote(max_calls=1, **resources)(_run)
        for reference in task.remote(function, arguments, _put(inputs), paths):
            item = ray.get(reference)
            if isinstance(item, UserError):
                raise item
            if isinstance(item, Files):
                item.write()
                return
            yield item


class Files(NamedTuple):
    """An item with which a node sends files: their contents by their paths."""

    contents: dict[str, bytes]

    def write(self) -> None:
        """Write the files to the same paths in the working directory, each whole or not at all."""
        for path, content in self.contents.items():
            with atomic_write(Path(path)) as part:
                part.write_bytes(content)


def _resources(cpus: int, all_gpus: bool = False) -> tuple[dict[str, int], int]:
    """What a process reserves, and for how many the cluster has room; at least one, which waits for a node."""
    gpus, cores = amounts("GPU"), amounts("CPU")
    if any(gpus):
        return {"num_gpus": max(gpus) if all_gpus else 1}, sum(gpus)
    cpus = min(cpus, max(cores)) or cpus
    return {"num_cpus": cpus}, max(1, sum(size // cpus for size in cores))


def _put(inputs: Iterable[Path]) -> Inputs:
    """Put files, and all files of folders, into Ray's memory."""
    import ray

    files = [path for given in inputs for path in (given, *given.rglob("*")) if path.is_file()]
    return {str(path): ray.put(path.read_bytes()) for path in files}


@contextmanager
def _folder(inputs: Inputs) -> Iterator[None]:
    """Change to a temporary folder with these files at the same relative paths, so that errors name known paths."""
    import ray

    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for path, reference in inputs.items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(ray.get(reference))
            yield
        finally:
            os.chdir(before)


# Executed on a node. A UserError is a result or an item, too: Ray would wrap it in an error of its own.

_functions: dict[str, Function] = {}  # what factories returned in this process


def _run_task(
    key: str, factory: Callable[[], Function], files: Inputs, task: Task, inputs: Inputs
) -> tuple[Result | UserError, bytes]:
    try:
        if key not in _functions:
            with _folder(files):
                _functions[key] = factory()
        with _folder(inputs):
            path = Path("output")
            result = _functions[key](task.argument, path)
            return result, path.read_bytes()
    except UserError as error:
        return error, b""


def _run(
    function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], inputs: Inputs, outputs: list[str]
) -> Iterator[Any]:
    with _folder(inputs):
        try:
            yield from function(*arguments)
            yield Files({path: Path(path).read_bytes() for path in outputs})
        except UserError as error:
            yield error
