"""Runs a gang of workers on the nodes of the Ray cluster, on different ones as far as there are enough."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stages.cluster.connect import amounts, connected, get_files, put_files
from stages.cluster.gang import Failure, LostWorkerError, free_port, received, with_restarts, work
from stages.cluster.remote import Files
from stages.runtime.errors import UserError

Item = TypeVar("Item")


def run_gang_remotely(
    function: Callable[..., Iterator[Item]],
    arguments: tuple[Any, ...],
    workers: int,
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    checkpoints: str,
    cpus: int,
) -> Iterator[Item]:
    """Run `function(*arguments)` in so many processes of the cluster at once, each in a folder of its own.

    Args:
        function: a generator function of a module of stages/; Ray sends its name.
        arguments: sent along.
        workers: number of processes. Each gets one GPU, if the cluster has any.
        inputs: files and folders that are copied to each of them. Like the outputs, relative to the working directory.
        outputs: files that are copied back from the first one, each whole or not at all.
        checkpoints: pattern of the files that the first one writes on its way. They are copied back after each item,
            and to all processes when they begin.
        cpus: processor cores that each process reserves if the cluster has no GPU.

    Yields:
        What the function yields in the first process. The outputs exist after the last item.

    Raises:
        UserError: that the function raised; the cluster is too small; or workers were lost again and again.
    """
    with connected():
        files, results = put_files(inputs), [str(path) for path in outputs]
        yield from with_restarts(partial(_attempt, function, arguments, workers, files, results, checkpoints, cpus))


def _attempt(
    function: Callable[..., Iterator[Item]],
    arguments: tuple[Any, ...],
    workers: int,
    inputs: dict[str, Any],
    outputs: list[str],
    checkpoints: str,
    cpus: int,
) -> Iterator[Item]:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    need = _resources(workers, cpus)
    group = placement_group([need] * workers, strategy="SPREAD")  # all of them, or none yet
    members: list[Any] = []
    try:
        for number in range(workers):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
            options = {"num_cpus": need.get("CPU", 0), "num_gpus": need.get("GPU", 0), "scheduling_strategy": place}
            members.append(ray.remote(_Worker).options(**options).remote())
        addresses = ray.get([member.address.remote() for member in members])
        files = inputs | put_files(Path().glob(checkpoints))
        streams = [
            member.run.options(num_returns="streaming").remote(
                function, arguments, addresses, number, files, outputs, checkpoints
            )
            for number, member in enumerate(members)
        ]
        yield from _messages(streams)
    except ray.exceptions.RayTaskError:
        raise  # our bug
    except ray.exceptions.RayError as error:
        raise LostWorkerError(f"a worker of {workers} was lost: {str(error).strip().splitlines()[0][:200]}") from None
    finally:
        for member in members:
            ray.kill(member)
        remove_placement_group(group)


def _resources(workers: int, cpus: int) -> dict[str, int]:
    """What each worker reserves.

    Raises:
        UserError: there will never be room for all of them, unless nodes join the cluster.
    """
    kind = "GPU" if any(amounts("GPU")) else "CPU"
    sizes = amounts(kind)
    amount = 1 if kind == "GPU" else max(1, min(cpus, max(sizes)))
    places = sum(size // amount for size in sizes)
    if places < workers:
        raise UserError(
            f"params.yaml: distribution: {workers} workers need {amount} {kind} each, and the Ray cluster has room for "
            f"{places}; add nodes and run the stage again, or change the number of workers"
        )
    return {kind: amount}


def _messages(streams: list[Any]) -> Iterator[Any]:
    """The items of the chief, until its end; an error of any worker as an exception."""
    import ray

    running = list(streams)
    while streams[0] in running:
        ready: list[Any] = ray.wait(running, num_returns=1)[0]
        stream = ready[0]
        try:
            message = ray.get(next(stream))
        except StopIteration:
            running.remove(stream)
            continue
        if isinstance(message, Files):
            message.write()
        else:
            yield received(message, f"worker {streams.index(stream) + 1} of {len(streams)}")


class _Worker:
    """A process on a node."""

    def address(self) -> str:
        """Where the other workers reach this one: host:port."""
        import ray

        return f"{ray.util.get_node_ip_address()}:{free_port()}"

    def run(
        self,
        function: Callable[..., Iterator[Any]],
        arguments: tuple[Any, ...],
        addresses: list[str],
        number: int,
        inputs: dict[str, Any],
        outputs: list[str],
        checkpoints: str,
    ) -> Iterator[Any]:
        """Do the work and yield its messages; the chief also sends `Files`."""
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            get_files(inputs)
            message, sent = None, _written_at(checkpoints)
            for message in work(function, arguments, addresses, number):
                yield message
                if (found := _written_at(checkpoints)) != sent:
                    yield Files({path: Path(path).read_bytes() for path in found})
                    sent = found
            if number == 0 and not isinstance(message, (UserError, Failure)):
                yield Files({path: Path(path).read_bytes() for path in outputs})


def _written_at(pattern: str) -> dict[str, int]:
    """When each file that matches was written, in ns."""
    return {str(path): path.stat().st_mtime_ns for path in Path().glob(pattern)}
