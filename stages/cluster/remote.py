"""Runs one generator function, such as a training, on a node of the Ray cluster."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stages.cluster.connect import amounts, connected, get_files, put_files
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write

Item = TypeVar("Item")


def run_remotely(
    function: Callable[..., Iterator[Item]],
    arguments: tuple[Any, ...],
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    all_gpus: bool,
    cpus: int,
) -> Iterator[Item]:
    """Run `function(*arguments)` on a node, in a folder of its own.

    If the node is lost, Ray starts the function again on another one; no item is yielded twice.

    Args:
        function: a generator function of a module of stages/; Ray sends its name.
        arguments: sent along.
        inputs: files and folders that are copied to the node. Like the outputs, relative to the working directory.
        outputs: files that are copied back, each whole or not at all.
        all_gpus: use all GPUs of a node instead of one.
        cpus: processor cores to reserve if the cluster has no GPU.

    Yields:
        What the function yields. The outputs exist after the last item.

    Raises:
        UserError: that the function raised.
    """
    paths = [str(path) for path in outputs]
    with connected():
        import ray

        gpus, cores = max(amounts("GPU")), max(amounts("CPU"))
        task = ray.remote(
            max_calls=1,  # a new process, as without Ray: Keras numbers the layers that a process creates
            **({"num_gpus": gpus if all_gpus else 1} if gpus else {"num_cpus": min(cpus, cores)}),
        )(_run)
        for reference in task.remote(function, arguments, put_files(inputs), paths):
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


def _run(
    function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], inputs: dict[str, Any], outputs: list[str]
) -> Iterator[Any]:
    """Executed on the node. A UserError is an item, too: Ray would wrap it in an error of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        get_files(inputs)
        try:
            yield from function(*arguments)
            yield Files({path: Path(path).read_bytes() for path in outputs})
        except UserError as error:
            yield error
