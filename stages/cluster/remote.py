"""Runs functions on nodes of a Ray cluster, which get the files that they read and send those that they write.

Only this module knows Ray, and no output depends on it. The cluster is the one at RAY_ADDRESS. The other nodes need the
packages of requirements.txt and requirements-cluster.txt, but neither this repository nor its data.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.numerics import silent

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
    try:
        import ray
    except ImportError:
        raise UserError(
            "params.yaml: engine: ray is not installed; run `make setup-cluster`, or set it to local"
        ) from None
    try:
        with silent():  # Ray reports that its log level is set
            ray.init(
                runtime_env={"py_modules": [str(Path(__file__).parents[1])], "excludes": ["__pycache__"]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        hint = "; if `ray start` said that token authentication is enabled, set RAY_AUTH_MODE=token"
        hint = "" if "RAY_AUTH_MODE" in os.environ else hint  # Ray sends a token only if it is told to
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"RAY_ADDRESS: {os.environ['RAY_ADDRESS']}: {reason}{hint}") from None
    try:
        yield
    finally:
        ray.shutdown()


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

        # A new process, as without Ray: Keras numbers the layers that a process creates
        task = ray.remote(max_calls=1, **_resources(cpus, all_gpus))(_run)
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


def _resources(cpus: int, all_gpus: bool) -> dict[str, int]:
    """What a process reserves."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cores = (max(int(node.get(resource, 0)) for node in nodes) for resource in ("GPU", "CPU"))
    if gpus:
        return {"num_gpus": gpus if all_gpus else 1}
    return {"num_cpus": min(cpus, cores) or cpus}


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


# Executed on a node. A UserError is an item, too: Ray would wrap it in an error of its own.


def _run(
    function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], inputs: Inputs, outputs: list[str]
) -> Iterator[Any]:
    with _folder(inputs):
        try:
            yield from function(*arguments)
            yield Files({path: Path(path).read_bytes() for path in outputs})
        except UserError as error:
            yield error
