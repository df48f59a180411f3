"""Runs functions on nodes of a Ray cluster, which get the files that they read and send those that they write.

Only this module knows Ray, and no output depends on it. The cluster is the one at RAY_ADDRESS, or one of this machine's
cores for the time of the work. The other nodes need the packages of requirements.txt and requirements-cluster.txt, but
neither this repository nor its data.
"""

import logging
import os
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.numerics import silent
from stages.runtime.tasks import Function, Result, Task

STORE = 1 << 30  # bytes of memory for objects, if the cluster is this machine
LONGEST = 30  # characters of TMPDIR: Ray makes sockets there, whose paths have at most 107, and 103 on macOS
LOSSES = 5  # how often a task is repeated whose process was lost: if that is more, it is not the fault of a node

Item = TypeVar("Item")
Inputs = dict[str, Any]  # references to the contents of files by their paths


@contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray for the time of the block.

    Raises:
        UserError: Ray is not installed, or no cluster of this version answers at RAY_ADDRESS.
    """
    # Errors that Ray's C++ part logs help no user; what ends the work raises an exception.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers on this machine have the priority of this process
    try:
        import ray
    except ImportError:
        raise UserError(
            "params.yaml: engine: ray is not installed; run `make setup-cluster`, or set it to local"
        ) from None
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
    if len(tempfile.gettempdir()) > LONGEST:
        local["_temp_dir"] = "/tmp/ray"
    try:
        with silent():  # Ray reports that its log level is set
            ray.init(
                **({} if address else local),
                runtime_env={"py_modules": [str(Path(__file__).parents[1])], "excludes": ["__pycache__"]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        hint = "; if `ray start` said that token authentication is enabled, set RAY_AUTH_MODE=token"
        hint = "" if "RAY_AUTH_MODE" in os.environ else hint  # Ray sends a token only if it is told to
        raise UserError(f"RAY_ADDRESS: {address}: {str(error).strip().splitlines()[0]}{hint}") from None
    try:
        yield
    finally:
        ray.shutdown()


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
                for path, content in item.contents.items():
                    with atomic_write(Path(path)) as part:
                        part.write_bytes(content)
                return
            yield item


class Files(NamedTuple):
    """An item with which a node sends files: their contents by their paths."""

    contents: dict[str, bytes]


def _resources(cpus: int, all_gpus: bool = False) -> tuple[dict[str, int], int]:
    """What a process reserves, and for how many the cluster has room; at least one, which waits for a node."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cores = ([int(node.get(resource, 0)) for node in nodes] for resource in ("GPU", "CPU"))
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
