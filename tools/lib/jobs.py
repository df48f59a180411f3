"""Run functions side by side, each in a process of its own that ends when this process ends, however it ends.

Each process leads a process group: Ctrl-C reaches only this process, which decides whether to send it on, and a signal
to a group reaches what the function has started.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.context import ForkProcess

PATIENCE = 0.2  # seconds until `wait` returns although nothing happened
SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass
class Job:
    """A process, its id, the end of a pipe that it writes to, and what it wrote of a line that is not complete."""

    process: ForkProcess
    pid: int
    output: int
    text: bytes = b""


class Jobs:
    """Processes that run at the same time. Fork needs a process without threads: start none beside this."""

    def __init__(self) -> None:
        self.running: dict[str, Job] = {}
        self._lifeline = os.pipe()

    def start(self, name: str, function: Callable[[], object]) -> None:
        """Call a function in a new process, which sees everything as it is here. Its result is lost."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        with blocked():  # the process must not take a signal with the handlers of this one
            process = get_context("fork").Process(target=_run, args=(function, writer, self._lifeline))
            process.start()
            os.close(writer)
            assert process.pid  # it was started
            with suppress(PermissionError, ProcessLookupError):  # the process does the same, whichever comes first
                os.setpgid(process.pid, process.pid)
            self.running[name] = Job(process, process.pid, reader)

    def wait(self) -> dict[str, int]:
        """Print each line that the processes write after the name of its process, until one ends or `PATIENCE` is over.

        Returns:
            Exit codes by name of those that have ended, negative after a signal.
        """
        by_handle = {handle: job for job in self.running.values() for handle in (job.output, job.process.sentinel)}
        connection.wait(by_handle, PATIENCE)
        codes = {name: code for name, job in self.running.items() if (code := job.process.exitcode) is not None}
        for name in codes:
            if codes[name] < 0:
                _signal(self.running[name], signal.SIGTERM)  # what it has started would run on
        for name in list(self.running):
            self._print(name, last=name in codes)
        for name in codes:
            job = self.running.pop(name)
            job.process.join()
            os.close(job.output)
        return codes

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes and to what they have started."""
        for job in self.running.values():
            _signal(job, number)

    def _print(self, name: str, last: bool) -> None:
        job = self.running[name]
        with suppress(BlockingIOError):
            while data := os.read(job.output, 1 << 16):
                job.text += data
        *lines, job.text = job.text.split(b"\n")
        if last and job.text:
            lines.append(job.text)
        for line in filter(None, lines):
            print(f"{name}: {line.decode(errors='replace')}", flush=True)


@contextmanager
def blocked() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal(job: Job, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended; macOS reports that as the other
        os.killpg(job.pid, number)


def _run(function: Callable[[], object], output: int, lifeline: tuple[int, int]) -> None:
    """Executed in the new process, with signals blocked."""
    with suppress(PermissionError):
        os.setpgid(0, 0)
    alive, other_end = lifeline
    os.close(other_end)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    os.close(output)
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()  # it keeps the signals blocked
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        function()
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _end_with_parent(alive: int) -> None:
    """Wait for the end of the only process that has the other end of the pipe, then end this process and its group."""
    os.read(alive, 1)
    os.killpg(0, signal.SIGTERM)
