"""Pending MLflow runs: files in mlruns/unsent with what MLflow has not received yet.

ID.json is a run, and ID.keras its model. A server that is down, slow or killed therefore loses nothing.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from stages.runtime.files import atomic_write

ROOT = Path(os.environ.get("DVC_ROOT", "."))  # of the clone: `dvc exp run --temp` runs stages in another folder
STORE = ROOT / "mlruns"
UNSENT = STORE / "unsent"


class PendingRun(BaseModel):
    """A training, or the evaluation of a model, that MLflow does not know completely. Times are Unix milliseconds."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    experiment: str
    name: str
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)  # MLflow keeps it as a tag, so a run is sent only once
    checkpoint: str | None = None  # path of a training's checkpoint; None for an evaluation
    started: int = Field(default_factory=lambda: now())
    ended: int | None = None
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
    tags: dict[str, str] = {}
    params: dict[str, str] = {}
    dataset: dict[str, str] = {}  # name and digest
    metrics: list[tuple[str, float, int, int]] = []  # key, value, time, step
    sent: int = Field(default=0, exclude=True)  # the first metrics that this process has sent: each takes MLflow time
    plots: dict[str, str] = {}  # content of files by their paths in MLflow
    model_md5: str | None = None  # of the model that a training saved, or that was evaluated

    @property
    def path(self) -> Path:
        """Where the run is kept."""
        return UNSENT / f"{self.id}.json"

    @property
    def model(self) -> Path:
        """Where a copy of the model is kept."""
        return UNSENT / f"{self.id}.keras"

    @property
    def lock(self) -> FileLock:
        """A training holds it until it ends, so a run with the status RUNNING whose lock is free was killed."""
        return FileLock(UNSENT / f"{self.id}.lock", timeout=0)

    @property
    def is_complete(self) -> bool:
        """Whether nothing will be added to the run: no training can resume from its checkpoint."""
        return self.status == "FINISHED" or (self.status != "RUNNING" and not Path(self.checkpoint or "").exists())

    def write(self) -> None:
        """Write the run to its file."""
        with atomic_write(self.path) as part:
            part.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Set the status and the time of the end."""
        self.status, self.ended = status, now()

    def remove(self) -> None:
        """Remove all files of the run: MLflow has everything."""
        for path in UNSENT.glob(f"{self.id}.*"):
            path.unlink(missing_ok=True)


def read_all() -> list[PendingRun]:
    """All pending runs: trainings before evaluations, older before newer."""
    runs = filter(None, map(_read, UNSENT.glob("*.json")))
    return sorted(runs, key=lambda run: (run.checkpoint is None, run.started))


@contextmanager
def claim(run: PendingRun) -> Iterator[PendingRun | None]:
    """Lock a pending run for the block and read it again.

    Yields:
        The run as it is now; None if another process holds the lock or has sent and removed the run.
    """
    lock = run.lock
    with suppress(Timeout):
        lock.acquire()
    try:
        current = _read(run.path) if lock.is_locked else None
        if lock.is_locked and current is None:
            run.remove()  # the lock is a file, too
        yield current
    finally:
        lock.release()


def now() -> int:
    """The current time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _read(path: Path) -> PendingRun | None:
    """Read a pending run. One that is corrupt, or of another version, is renamed with a warning."""
    try:
        return PendingRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:  # sent by another process
        return None
    except ValueError as error:
        target = path.with_suffix(".unreadable")
        with suppress(FileNotFoundError):  # renamed by another process
            path.rename(target)
        reason = " ".join(str(error).split())[:100]
        print(f"warning: {path}: not a pending run of this version: {reason}; moved to {target}", flush=True)
        return None
