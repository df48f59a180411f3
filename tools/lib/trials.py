"""Trials of a search: each is a `dvc exp run --temp` in a process group of its own, and leaves an experiment."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from stages.config.search import Value
from stages.runtime import paths
from stages.runtime.errors import UserError
from tools.lib.git import experiments, git

FOLDER = Path(".dvc/tmp/search")  # trials and logs
EPOCH = re.compile(r"^epoch (\d+)/\d+: loss (\S+),.* accuracy (\S+)$")  # what stages.train prints
STARTED = re.compile(r"^Reproducing experiment '(.+)'$")
ERROR = re.compile(r"(error|\w+Error|ERROR): ")
GRACE = 20.0  # seconds between the request to stop and the kill
EXECUTORS = Path(".dvc/tmp/exps")  # DVC's: run/REVISION/REVISION.run names an experiment and its folder


class TrialRunner:
    """Runs trials of one model, several of them at the same time in threads."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.is_stopping = False
        self._running = set[subprocess.Popen[str]]()
        self._starting: subprocess.Popen[str] | None = None
        # DVC hands experiments over through a stash, where the next process would take this one
        self._handing_over = threading.Lock()

    def run(self, experiment: str, values: Mapping[str, Value], log: Path) -> Generator[tuple[int, float, float]]:
        """Run a trial until it ends, or until the generator is closed.

        Args:
            experiment: name of the experiment that it leaves.
            values: what to set in the model's entry, by dotted keys.
            log: file for what it prints.

        Yields:
            Epoch, training loss and validation accuracy.

        Raises:
            UserError: it failed, or `stop` was called.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        current = ""  # DVC also runs what it finds of other processes
        with log.open("w", encoding="utf-8") as file:
            with self._handing_over:
                if self.is_stopping:
                    raise UserError("interrupted")
                process = self._starting = self._start(experiment, values)
                self._running.add(process)
                lines = self._lines(process, file)
                for line in lines:
                    if found := STARTED.match(line):
                        current = found[1]
                        break
                self._starting = None
            try:
                if self.is_stopping:  # since then
                    _signal(process, signal.SIGINT)
                for line in lines:
                    if found := STARTED.match(line):
                        current = found[1]
                    elif current == experiment and (found := EPOCH.match(line)):
                        yield int(found[1]), float(found[2]), float(found[3])
                process.wait()
            finally:
                _signal(process, signal.SIGINT)  # as Ctrl-C: DVC then removes the folder
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                _signal(process, signal.SIGKILL)
                self._running.discard(process)
                remove_folders(experiment)
        if self.is_stopping or process.wait():
            raise UserError("interrupted" if self.is_stopping else _reason(log))

    def stop(self) -> None:
        """Interrupt all trials; kill them if this is called again. No other starts."""
        number = signal.SIGKILL if self.is_stopping else signal.SIGINT
        self.is_stopping = True
        for process in list(self._running):
            if process is not self._starting or number == signal.SIGKILL:  # until it has started, DVC changes the stash
                _signal(process, number)

    def _start(self, experiment: str, values: Mapping[str, Value]) -> "subprocess.Popen[str]":
        sets = [f"++models.{self.model}.{key}={json.dumps(value)}" for key, value in values.items()]
        options = [text for each in sets for text in ("-S", each)]
        return subprocess.Popen(
            ["dvc", "--wait-for-lock", "exp", "run", "--temp", "-n", experiment, *options, f"evaluate@{self.model}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            start_new_session=True,  # Ctrl-C reaches it through `stop` alone
            # A shell that starts a search in the background ignores SIGINT, which `stop` sends
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    @staticmethod
    def _lines(process: "subprocess.Popen[str]", log: IO[str]) -> Iterator[str]:
        """What a process prints, line by line, which the log gets, too."""
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            log.flush()
            yield line


def _signal(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _reason(log: Path) -> str:
    """The line of a log that says most about a failure."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return next(iter([*filter(ERROR.match, lines), *reversed(lines)]), "no output").strip()[:300]


def accuracy(experiment: str, model: str) -> float:
    """The validation accuracy of a model in an experiment; a `UserError` if DVC did not store it."""
    for found in experiments(experiment):
        return float(json.loads(git("show", f"{found.ref}:./{paths.metrics(model)}"))["validation_accuracy"])
    raise UserError(f"DVC stored no result of {experiment}")


def remove_experiments(names: Iterable[str]) -> None:
    """Remove the experiments with these names, as far as there are any."""
    removed = set(names)
    for found in experiments("search-*"):
        if found.name in removed:
            git("update-ref", "-d", found.ref)


def remove_folders(pattern: str) -> None:
    """Remove what a killed DVC left of experiments whose names match a pattern."""
    for path in EXECUTORS.glob("run/*/*.run"):
        with suppress(OSError, ValueError):
            info = json.loads(path.read_text(encoding="utf-8"))
            if Path(info["name"] or "").match(pattern):
                shutil.rmtree(info["root_dir"], ignore_errors=True)
                shutil.rmtree(path.parent)
                shutil.rmtree(EXECUTORS / "standalone/run" / path.parent.name, ignore_errors=True)
