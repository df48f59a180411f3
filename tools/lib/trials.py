"""One trial of a search: a `dvc exp run --temp` in a process group of its own, and the experiment that it leaves."""

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from stages.config.search import Value
from stages.runtime import paths
from tools.compare.base import git

EPOCH = re.compile(r"^epoch (\d+)/\d+: loss (\S+),.* validation (\S+)$")  # what stages.train prints
STARTED = re.compile(r"^Reproducing experiment '(.+)'$")
GRACE = 20.0  # seconds between the request to stop and the kill
EXECUTORS = Path(".dvc/tmp/exps")  # DVC's: run/REVISION/REVISION.run names an experiment and its folder


class RunningTrial:
    """A trial that runs; what it prints goes to a log.

    DVC hands experiments over through a stash that all its processes share. So the next trial may start only when this
    one `is_started`, and a process may take the trial of another one: then it `is_foreign` and has to be stopped.
    """

    def __init__(
        self, experiment: str, model: str, values: Mapping[str, Value], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.experiment, self.model, self.log = experiment, model, log
        self.is_started = self.is_foreign = False
        self.reason = ""  # why it was stopped
        self._stopped_at = math.inf
        self._rest = b""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("wb")
        overrides = [text for key, value in values.items() for text in ("-S", override(model, key, value))]
        command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "-n", experiment, *overrides, f"evaluate@{model}"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            start_new_session=True,  # Ctrl-C reaches it through `stop` alone
            # A shell that starts a search in the background ignores SIGINT, which `stop` sends
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.process.stdout
        self.output = self.process.stdout

    def read(self) -> list[tuple[int, float, float]] | None:
        """Epoch, training loss and validation accuracy of each epoch since the last call; None at the end of output."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        if not chunk:
            return None
        self._log.write(chunk)
        self._log.flush()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        epochs = []
        for line in (line.decode(errors="replace") for line in lines):
            if started := STARTED.match(line):
                self.is_started = True
                self.is_foreign = started[1] != self.experiment
            elif found := EPOCH.match(line):
                epochs.append((int(found[1]), float(found[2]), float(found[3])))
        return epochs

    def stop(self, reason: str = "") -> None:
        """Ask the training to stop, as Ctrl-C does: DVC then removes the folder. After `GRACE` a further call kills."""
        self.reason = self.reason or reason
        if self._stopped_at == math.inf:
            self._stopped_at = time.monotonic()
            _signal_group(self.process.pid, signal.SIGINT)
        elif time.monotonic() - self._stopped_at > GRACE:
            _signal_group(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Wait for the end of a trial that was stopped, or whose output has ended, and remove what it left.

        One that DVC is still handing over is stopped afterwards: it changes the stash.
        """
        deadline = time.monotonic() + GRACE
        while select.select([self.output], [], [], 1)[0] == [] or self.read() is not None:
            if self.is_started or time.monotonic() > deadline:
                self.stop()
        self.process.wait()
        self._log.close()
        self.output.close()
        remove_folders(self.experiment)

    @property
    def identity(self) -> tuple[int, float]:
        """The process for `stop_orphan`."""
        return self.process.pid, psutil.Process(self.process.pid).create_time()

    def error(self) -> str:
        """The line of the log that says most about a failure."""
        lines = self.log.read_text(errors="replace", encoding="utf-8").splitlines()
        errors = [line for line in lines if re.match(r"(error|\w+Error|ERROR): ", line)]
        return next(iter([*errors, *reversed(lines)]), "no output").strip()[:300]


def override(model: str, key: str, value: Value) -> str:
    """The argument of `-S` that sets a key of a model, whether params.yaml has it or not."""
    return f"++models.{model}.{key}={json.dumps(value)}"


def stop_orphan(identity: Sequence[float]) -> None:
    """Stop a trial whose search was killed, if it still runs: the number of a process may belong to another by now."""
    with suppress(psutil.NoSuchProcess, ValueError):
        pid, created = identity
        process = psutil.Process(int(pid))
        if process.create_time() != created:
            return
        _signal_group(process.pid, signal.SIGINT)
        _, alive = psutil.wait_procs([process], GRACE)
        if alive:
            _signal_group(process.pid, signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def accuracy(experiment: str, model: str) -> float | None:
    """The validation accuracy of a model in an experiment; None if there is no such experiment."""
    refs = references(experiment)
    return (
        float(json.loads(git("show", f"{refs[0]}:./{paths.metrics(model)}"))["validation_accuracy"]) if refs else None
    )


def references(pattern: str) -> list[str]:
    """Git references of the DVC experiments whose names match a pattern, of any commit."""
    return git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{pattern}").split()


def remove_experiments(pattern: str, keep: str = "") -> None:
    """Remove the experiments whose names match a pattern, but the one to keep."""
    for ref in references(pattern):
        if ref.rpartition("/")[2] != keep:
            git("update-ref", "-d", ref)


def remove_folders(pattern: str) -> None:
    """Remove what a killed DVC left of experiments whose names match a pattern."""
    for path in EXECUTORS.glob("run/*/*.run"):
        with suppress(OSError, ValueError):
            info = json.loads(path.read_text(encoding="utf-8"))
            if Path(info["name"] or "").match(pattern):
                shutil.rmtree(info["root_dir"], ignore_errors=True)
                shutil.rmtree(path.parent)
                shutil.rmtree(EXECUTORS / "standalone/run" / path.parent.name, ignore_errors=True)
