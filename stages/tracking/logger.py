"""Logs trainings and evaluations as runs in MLflow. No output of a stage depends on it.

Everything is written to disk first (stages.tracking.pending) and then sent (stages.tracking.server).
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from stages.config.models import ModelConfig
from stages.runtime import paths
from stages.runtime.dvc_lock import output_hash
from stages.runtime.files import atomic_write, file_hash
from stages.tracking import parent, pending, server
from stages.tracking.pending import PendingRun

SECONDS_BETWEEN = 1.0  # between two requests: an epoch may be shorter than the way to a distant server


class RunLogger:
    """Logs a training while it runs. After the first failure only `flush` sends its run."""

    def __init__(self, run: PendingRun) -> None:
        self.run = run
        self._failed = False
        self._sent_at = 0.0
        self.save()

    def log_epoch(self, step: int, row: Mapping[str, float]) -> None:
        """Log the metrics of an epoch, counted from 1. An epoch that was logged before an interruption is skipped."""
        if any(logged == step for *_, logged in self.run.metrics):
            return
        now = pending.now()
        self.run.metrics += [(key, float(value), now, step) for key, value in row.items()]
        self.save(send=time.monotonic() - self._sent_at >= SECONDS_BETWEEN)

    def log_model(self, path: Path) -> None:
        """Log the file of the trained model."""
        with atomic_write(self.run.model) as part:
            shutil.copyfile(path, part)
        self.run.model_md5 = file_hash(path, "md5")

    def save(self, send: bool = True) -> None:
        """Write the run to disk and send it."""
        self.run.write()
        if send and not self._failed:
            self._failed = not server.flush(self.run)
            self._sent_at = time.monotonic()


@contextmanager
def training(name: str, model: ModelConfig, extra: Mapping[str, Any], checkpoint: str) -> Iterator[RunLogger]:
    """Log a training as a run in the experiment of its dataset; the run ends with the block.

    Args:
        name: the model.
        model: its resolved configuration; every value is logged as a param.
        extra: further params.
        checkpoint: absolute path of the checkpoint. A training that resumes from it continues its run.
    """
    with ExitStack() as stack:
        interrupted = (run for run in pending.read_all() if run.checkpoint == checkpoint and run.status != "FINISHED")
        run = next(filter(None, (stack.enter_context(pending.claim(found)) for found in interrupted)), None)
        if run is None:
            digest = output_hash(paths.records(model.dataset))
            run = PendingRun(
                experiment=model.dataset,
                name=name,
                status="RUNNING",
                checkpoint=checkpoint,
                tags=_tags(f"train@{name}"),
                params=_flatten({**model.model_dump(), **extra}),
                dataset={"name": model.dataset, "digest": digest} if digest else {},
            )
            stack.enter_context(run.lock)  # before the run is on disk, where another process would find it unlocked
        run.status, run.ended = "RUNNING", None
        logger = RunLogger(run)
        try:
            yield logger
        except BaseException as error:
            run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        else:
            run.end("FINISHED")
        finally:
            logger.save()


def log_evaluation(name: str, experiment: str, model_md5: str, metrics: Mapping[str, float], plots: list[Path]) -> None:
    """Keep a model's test metrics and the files of its plots for the run that trained it; `server.flush` sends them.

    Importing MLflow takes longer than evaluating a model.

    Args:
        name: the model.
        experiment: its dataset.
        model_md5: MD5 of the model file.
        metrics: logged as test_NAME.
        plots: text files.
    """
    now = pending.now()
    PendingRun(
        experiment=experiment,
        name=name,
        status="FINISHED",
        metrics=[(f"test_{key}", float(value), now, 0) for key, value in metrics.items()],
        plots={f"plots/{plot.parent.name}/{plot.name}": plot.read_text(encoding="utf-8") for plot in plots},
        model_md5=model_md5,
    ).write()


def _tags(stage: str) -> dict[str, str]:
    """Where a run comes from: stage, DVC experiment and its baseline, search, Git commit. Unknown ones are left out."""
    tags = {
        "stage": stage,
        "mlflow.source.name": stage,
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
        "dvc_baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "mlflow.parentRunId": os.environ.get(parent.VARIABLE),
    }
    with suppress(OSError):  # git is not installed
        # Two revisions: only a commit of this project, not of a repository around it, has the dvc.yaml of this folder.
        command = ["git", "rev-parse", "HEAD", "HEAD:./dvc.yaml"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        tags["mlflow.source.git.commit"] = None if done.returncode else done.stdout.split()[0]
    return {key: value for key, value in tags.items() if value}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as text under dotted keys."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
