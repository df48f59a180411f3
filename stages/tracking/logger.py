"""Logs a training as a run in MLflow while it runs. No output of a stage depends on it.

MLflow may be away: `stages.tracking.sync` makes up for what it has missed.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.config.models import ModelConfig
from stages.runtime import paths
from stages.runtime.dvc_lock import output_hashes
from stages.tracking import runs, server

SECONDS_BETWEEN = 1.0  # between two requests: an epoch may be shorter than the way to a distant server


class RunLogger:
    """A training's run. The first failure is a warning and ends the logging, so that MLflow costs one wait at most."""

    def __init__(self, name: str, model: ModelConfig, extra: Mapping[str, object], checkpoint: str) -> None:
        """Create the run, or continue that of an interrupted training; arguments as `training`."""
        self.name = name
        self._is_on = True
        self._rows: list[tuple[int, Mapping[str, float]]] = []  # not sent yet
        self._sent_at = 0.0
        self._attempt(lambda: self._begin(model, extra, checkpoint))

    def log_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Log the row of an epoch, counted from 1. One that was logged before an interruption is skipped."""
        self._rows.append((epoch, row))
        if time.monotonic() - self._sent_at >= SECONDS_BETWEEN:
            self._attempt(self._send)

    def log_model(self, path: Path) -> None:
        """Log the file of the trained model."""
        self._attempt(lambda: runs.log_model(self._client, self._run_id, self.name, path))

    def end(self, status: str) -> None:
        """End the run with one of MLflow's statuses."""
        self._attempt(self._send)
        self._attempt(lambda: self._client.set_terminated(self._run_id, status))

    def _begin(self, model: ModelConfig, extra: Mapping[str, object], checkpoint: str) -> None:
        self._client = server.connect()
        interrupted = f"tags.checkpoint = '{checkpoint}' and attributes.status != 'FINISHED'"
        if found := runs.find(self._client, interrupted):
            self._run_id = str(found.info.run_id)
            self._client.update_run(self._run_id, "RUNNING")
        else:
            digest = output_hashes().get(paths.records(model.dataset).as_posix(), "")
            tags = {**_tags(), "checkpoint": checkpoint}
            self._run_id = runs.create(self._client, self.name, model.dataset, digest, runs.params(model, extra), tags)
        self._logged = runs.last_epoch(self._client, self._run_id)

    def _send(self) -> None:
        runs.log_epochs(self._client, self._run_id, [row for row in self._rows if row[0] > self._logged])
        self._rows, self._sent_at = [], time.monotonic()

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            if self._is_on:
                action()
        except Exception as error:  # whatever it is, it must not stop a training
            self._is_on = False
            print(f"warning: {server.failure(error)}; `{server.SYNC}` logs the training later", flush=True)


@contextmanager
def training(name: str, model: ModelConfig, extra: Mapping[str, object], checkpoint: str) -> Iterator[RunLogger]:
    """Log a training as a run in the experiment of its dataset; the run ends with the block.

    Args:
        name: the model.
        model: the resolved configuration; every value is logged as a param.
        extra: more params to log.
        checkpoint: what identifies the checkpoint. A training that resumes from it continues its run.
    """
    run_logger = RunLogger(name, model, extra, checkpoint)
    try:
        yield run_logger
    except BaseException as error:
        run_logger.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run_logger.end("FINISHED")


def _tags() -> dict[str, str]:
    """Where a run comes from: DVC experiment and its baseline, Git commit. Unknown ones are left out."""
    tags = {
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
        "dvc_baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
    }
    with suppress(OSError):  # git is not installed
        # Two revisions: only a commit of this project, not of a repository around it, has the dvc.yaml of this folder.
        command = ["git", "rev-parse", "HEAD", "HEAD:./dvc.yaml"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        tags["mlflow.source.git.commit"] = None if done.returncode else done.stdout.split()[0]
    return {key: value for key, value in tags.items() if value}
