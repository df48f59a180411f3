"""Runs one generator function, such as a training, in several processes that work together: a gang.

Each process, a worker, finds the addresses of all in TF_CONFIG, which TensorFlow's MultiWorkerMirroredStrategy reads.
The first one, the chief, yields for all of them. When a worker is lost, the others wait for it in vain, so all of them
begin again, from the last checkpoint.

Here the workers are processes of this machine; stages.cluster.remote_gang runs them on a Ray cluster.
"""

import itertools
import json
import multiprocessing
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from stages.runtime.errors import UserError
from stages.runtime.numerics import NVIDIA

Item = TypeVar("Item")

ATTEMPTS = 3  # without an item more than before, until a gang gives up


class LostWorkerError(Exception):
    """A worker ended, or cannot reach another one. The message is the beginning of a line for people."""


class Failure(NamedTuple):
    """What a worker sends instead of an item when an exception ended it."""

    error: str  # name of its class
    traceback: str
    is_tensorflow: bool  # such as from a collective operation whose other end is gone


class _End(NamedTuple):
    """What a worker sends after its last item."""


def run_gang(function: Callable[..., Iterator[Item]], arguments: tuple[Any, ...], workers: int) -> Iterator[Item]:
    """Run `function(*arguments)` in so many new processes of this machine at once, in this folder.

    With GPUs, each worker gets one of them.

    Args:
        function: a generator function of a module; the processes import it.
        arguments: sent along.
        workers: number of processes.

    Yields:
        What the function yields in the first process. No item is yielded twice, also if the processes begin again.

    Raises:
        UserError: that the function raised; there are GPUs, but too few; or workers were lost again and again.
    """
    gpus = _visible_gpus()
    if 0 < len(gpus) < workers:
        raise UserError(
            f"params.yaml: distribution: {workers} workers need a GPU each, and this machine has {len(gpus)}; change "
            "their number, use other machines with engine: ray, or set CUDA_VISIBLE_DEVICES= to use the processor"
        )
    return with_restarts(partial(_attempt, function, arguments, workers, gpus))


def with_restarts(attempt: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Yield the items of an attempt; after a `LostWorkerError` those of the next attempt that are new.

    Raises:
        UserError: `ATTEMPTS` attempts, one after the other, yielded nothing new.
    """
    yielded = failures = 0
    while True:
        try:
            with closing(attempt()) as items:  # type: ignore[type-var]
                for number, item in enumerate(items):
                    if number == yielded:
                        yield item
                        yielded, failures = yielded + 1, 0
            return
        except LostWorkerError as error:
            failures += 1
            if failures == ATTEMPTS:
                raise UserError(f"{error}, {ATTEMPTS} times in a row; run the stage again to continue") from None
            print(f"{error}; all workers start again from the last checkpoint", flush=True)


def work(
    function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], addresses: list[str], number: int
) -> Iterator[Any]:
    """Run the function as worker `number`, from 0, in the process of its own that it was given.

    Args:
        function: of the gang.
        arguments: of the function.
        addresses: host:port of every worker, in their order.
        number: of this worker.

    Yields:
        The items, if this is the chief; at last, if an exception ended it, the `UserError` or a `Failure`.
    """
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
    hosts = {address.rpartition(":")[0] for address in addresses}
    os.environ |= {"TF_CONFIG": json.dumps(task), "no_grpc_proxy": ",".join(sorted(hosts))}
    if number:  # what it prints is what the chief prints
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    try:
        for item in function(*arguments):
            if number == 0:
                yield item
    except UserError as error:
        yield error
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        yield Failure(
            names[0], traceback.format_exc(), "OpError" in names
        )  # by its name: this process may have no TensorFlow


def received(message: Item | UserError | Failure, worker: str) -> Item:
    """The item of a message. Otherwise, raise what ended the worker."""
    if isinstance(message, UserError):
        raise message
    if isinstance(message, Failure):
        if message.is_tensorflow:
            raise LostWorkerError(f"{worker} failed with TensorFlow's {message.error}")
        raise RuntimeError(f"{worker} failed:\n{message.traceback}")
    return message


def free_port() -> int:
    """A port on which nothing listens. TensorFlow cannot be given a socket, so another process may be faster."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _visible_gpus() -> list[str]:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:  # CUDA sees those up to the first that cannot be one: -1 is the usual way to hide them all
        return list(itertools.takewhile(lambda gpu: gpu and not gpu.startswith("-"), chosen.split(",")))
    return [str(number) for number, _ in enumerate(NVIDIA.parent.glob("gpus/*"))]


def _attempt(
    function: Callable[..., Iterator[Item]], arguments: tuple[Any, ...], workers: int, gpus: list[str]
) -> Iterator[Item]:
    context = multiprocessing.get_context("spawn")  # a copy of this process may have threads of TensorFlow in disorder
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(workers)]
    processes: list[Any] = []
    connections: list[Connection] = []
    try:
        for number in range(workers):
            here, there = context.Pipe()
            environment = {"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}
            process = context.Process(
                target=_main, args=(there, environment, function, arguments, addresses, number), daemon=True
            )
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for this process alone
            process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            there.close()
            processes.append(process)
            connections.append(here)
        yield from _messages(connections)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _messages(connections: list[Connection]) -> Iterator[Any]:
    """The items of the chief, until its end; an error of any worker as an exception."""
    while True:
        for connection in wait(connections):
            number = connections.index(connection)  # type: ignore[arg-type]
            worker = f"worker {number + 1} of {len(connections)}"
            try:
                message = connections[number].recv()
            except (EOFError, ConnectionError):
                raise LostWorkerError(f"{worker} was killed") from None
            if not isinstance(message, _End):
                yield received(message, worker)
            elif number == 0:
                return


def _main(connection: Connection, environment: dict[str, str], *arguments: Any) -> None:
    """The process of a worker. It ends with the one that started it, which also ends it."""
    os.environ |= environment
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    for message in work(*arguments):
        connection.send(message)
    connection.send(_End())
    threading.Event().wait()  # not yet gone: the chief may still work, and what it shares with the others would fail


def _end_with_parent(connection: Connection) -> None:
    try:
        connection.recv()  # nothing is ever sent
    except (EOFError, OSError):
        os._exit(1)
