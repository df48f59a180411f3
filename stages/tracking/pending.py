"""Pending MLflow runs: folders in mlruns/unsent with what MLflow has not received yet.

Each folder holds run.json and the files to log. A server that is down, slow or killed therefore loses nothing.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from stages.runtime.files import atomic_write

ROOT = Path(os.environ.get("DVC_ROOT", "."))  # of the clone: `dvc exp run --temp` runs stages in another folder
STORE = ROOT / "mlruns"
UNSENT = STORE / "unsent"
UNREADABLE = STORE / "unreadable"


class PendingRun(BaseModel):
    """A training, or the evaluation of a model, that MLflow does not know completely. Times are Unix milliseconds."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    experiment: str
    name: str
    # MLflow keeps it as a tag: a run that is sent twice is found again
    id: str = Field(default_factory=lambda: uuid.uuid4().hex, pattern="^[0-9a-f]{32}$")
    checkpoint: str | None = None  # path of a training's checkpoint; None for an evaluation
    started: int = Field(default_factory=lambda: now())
    ended: int | None = None
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"] = "RUNNING"
    tags: dict[str, str] = {}
    params: dict[str, str] = {}
    dataset: dict[str, str] = {}  # name and digest
    metrics: list[tuple[str, float, int, int]] = []  # key, value, time, step
    model_md5: str | None = None  # of the model that a training saved, or that was evaluated

    @property
    def folder(self) -> Path:
        """Where the run and its files are kept until they are sent."""
        return UNSENT / self.id

    @property
    def is_resumable(self) -> bool:
        """Whether this is an interrupted training whose checkpoint exists."""
        return self.checkpoint is not None and self.status != "FINISHED" and Path(self.checkpoint).exists()

    def write(self) -> None:
        """Write run.json."""
        with atomic_write(self.folder / "run.json") as part:
            part.write_text(self.model_dump_json(indent=1))

    def add_file(self, source: Path, name: str) -> None:
        """Copy a file to the folder as `name`."""
        with atomic_write(self.folder / name) as part:
            shutil.copyfile(source, part)

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Set the status and the time of the end."""
        self.status, self.ended = status, now()

    def remove(self) -> None:
        """Remove the folder: MLflow has everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read_all() -> list[PendingRun]:
    """All pending runs: trainings before evaluations, older before newer."""
    runs = filter(None, map(_read, UNSENT.glob("*/*.json")))
    return sorted(runs, key=lambda run: (run.checkpoint is None, run.started))


@contextmanager
def claim(run: PendingRun) -> Iterator[PendingRun | None]:
    """Lock a pending run for the block and read it again.

    A training holds the lock until it ends, so a run with the status RUNNING whose lock is free was killed.

    Yields:
        The run as it is now; None if another process holds the lock or has sent and removed the run.
    """
    lock = FileLock(run.folder / ".lock", timeout=0)
    try:
        if run.folder.exists():
            lock.acquire()
    except Timeout:
        pass
    try:
        if lock.is_locked and not (run.folder / "run.json").exists():
            run.remove()  # the lock has created the folder again
        yield _read(run.folder / "run.json") if lock.is_locked else None
    finally:
        lock.release()


def now() -> int:
    """The current time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _read(path: Path) -> PendingRun | None:
    """Read a pending run. One that is corrupt, or of another version, is moved away with a warning."""
    try:
        run = PendingRun.model_validate_json(path.read_bytes())
        if path != run.folder / "run.json":
            raise ValueError(f"its id is {run.id}")
    except FileNotFoundError:  # sent by another process
        return None
    except (ValueError, OSError) as error:
        target = UNREADABLE / f"{path.parent.name}-{uuid.uuid4().hex[:8]}"
        outcome = f"moved to {target}"
        try:
            UNREADABLE.mkdir(exist_ok=True)
            os.replace(path.parent, target)
        except FileNotFoundError:  # moved by another process
            return None
        except OSError as failure:
            outcome = f"not moved to {target}: {failure.strerror}"
        reason = " ".join(str(error).split())[:100]
        print(f"warning: {path}: not a pending run of this version: {reason}; {outcome}", flush=True)
        return None
    return run
