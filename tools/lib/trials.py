"""One trial of a search: a `dvc exp run --temp` in a process group of its own, and the experiment that it leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from stages.config.search import Value
from stages.runtime import paths
from tools.lib.git import experiments, git

EPOCH = re.compile(r"^epoch (\d+)/\d+: loss (\S+),.* accuracy (\S+)$")  # what stages.train prints
STARTED = re.compile(r"^Reproducing experiment '(.+)'$")
GRACE = 20.0  # seconds between the request to stop and the kill
EXECUTORS = Path(".dvc/tmp/exps")  # DVC's: run/REVISION/REVISION.run names an experiment and its folder
# DVC hands experiments over through a stash, where the next process would take this one: held until it has started
handing_over = threading.Lock()


class RunningTrial:
    """A trial that runs; what it prints goes to a log. Whoever makes one holds `handing_over`, which it releases."""

    def __init__(
        self, experiment: str, model: str, values: Mapping[str, Value], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.experiment, self.log = experiment, log
        self.reason = ""  # why it was stopped
        self._is_started = False
        log.parent.mkdir(parents=True, exist_ok=True)
        overrides = [text for key, value in values.items() for text in ("-S", override(model, key, value))]
        command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "-n", experiment, *overrides, f"evaluate@{model}"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            start_new_session=True,  # Ctrl-C reaches it through `stop` alone
            # A shell that starts a search in the background ignores SIGINT, which `stop` sends
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def epochs(self) -> Iterator[tuple[int, float, float]]:
        """Epoch, training loss and validation accuracy of each epoch, until the trial has ended."""
        assert self.process.stdout
        current = ""  # DVC also runs what it finds of other processes
        with self.log.open("w", encoding="utf-8") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                if started := STARTED.match(line):
                    current = started[1]
                    self._set_started()
                elif current == self.experiment and (found := EPOCH.match(line)):
                    yield int(found[1]), float(found[2]), float(found[3])
        self.wait()

    def wait(self) -> None:
        """Wait for the end of the process, and remove what it left."""
        self._set_started()
        self.process.wait()
        remove_folders(self.experiment)

    def stop(self, reason: str) -> None:
        """Ask the training to stop, as Ctrl-C does: DVC then removes the folder. After `GRACE` it is killed."""
        if self.reason:
            return
        self.reason = reason
        if self._is_started:  # before that, DVC changes the stash
            self._interrupt()
        for seconds, number in ((GRACE, signal.SIGINT), (2 * GRACE, signal.SIGKILL)):
            timer = threading.Timer(seconds, _signal_group, [self.process, number])
            timer.daemon = True
            timer.start()

    @property
    def identity(self) -> tuple[int, float]:
        """The process for `stop_orphan`."""
        return self.process.pid, psutil.Process(self.process.pid).create_time()

    def error(self) -> str:
        """The line of the log that says most about a failure."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        errors = [line for line in lines if re.match(r"(error|\w+Error|ERROR): ", line)]
        return next(iter([*errors, *reversed(lines)]), "no output").strip()[:300]

    def _set_started(self) -> None:
        if not self._is_started:
            self._is_started = True
            handing_over.release()
            if self.reason:
                self._interrupt()

    def _interrupt(self) -> None:
        _signal_group(self.process, signal.SIGINT)


def override(model: str, key: str, value: Value) -> str:
    """The argument of `-S` that sets a key of a model, whether params.yaml has it or not."""
    return f"++models.{model}.{key}={json.dumps(value)}"


def stop_orphan(identity: Sequence[float]) -> None:
    """Stop a trial whose search was killed, if it still runs: the number of a process may belong to another by now."""
    with suppress(psutil.NoSuchProcess, ValueError):
        pid, created = identity
        process = psutil.Process(int(pid))
        if process.create_time() == created:
            os.killpg(process.pid, signal.SIGINT)
            if psutil.wait_procs([process], GRACE)[1]:
                os.killpg(process.pid, signal.SIGKILL)


def _signal_group(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def accuracy(experiment: str, model: str) -> float | None:
    """The validation accuracy of a model in an experiment; None if there is no such experiment."""
    for found in experiments(experiment):
        return float(json.loads(git("show", f"{found.ref}:./{paths.metrics(model)}"))["validation_accuracy"])
    return None


def remove_experiments(pattern: str, keep: str = "") -> None:
    """Remove the experiments whose names match a pattern, but the one to keep."""
    for found in experiments(pattern):
        if found.name != keep:
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
