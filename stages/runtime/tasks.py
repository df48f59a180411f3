"""Tasks that each write one file and need no other task: what a cluster divides among its nodes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stages.runtime.files import atomic_write

Result = Any  # anything that pickle can store, and small: it passes through the process that asked for the task
Function = Callable[[Any, Path], Result]  # called with the argument of a task; writes the file at the path


class Task(NamedTuple):
    """One call of a function. Paths are relative to the working directory, which is the project's folder."""

    argument: Any
    inputs: tuple[Path, ...]  # files that the function reads
    output: Path  # the file that it writes


def run_tasks(tasks: Iterable[Task], function: Function) -> Iterator[tuple[Task, Result]]:
    """Run one task after the other in this process; yield each and its result when its file is whole."""
    for task in tasks:
        with atomic_write(task.output) as path:
            result = function(task.argument, path)
        yield task, result
