"""Pending runs on disk: corrupt ones, locked ones, and those of interrupted trainings."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from stages.config.models import ModelConfig
from stages.tracking import logger, pending, server
from tests.conftest import commit, run
from tests.tracking.conftest import ROW, runs


def interrupt(config: ModelConfig, checkpoint: Path) -> None:
    """Start a training of which Ctrl-C leaves one epoch."""
    with suppress(KeyboardInterrupt), logger.training("mnist_dense", config, {}, str(checkpoint)) as log:
        log.log_epoch(1, ROW)
        raise KeyboardInterrupt


def test_pending_runs_unreadable_are_renamed_with_one_warning_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: ModelConfig
) -> None:
    """After a power cut, and of another version."""
    monkeypatch.setattr(server, "flush", lambda run=None: True)
    pending.UNSENT.mkdir(parents=True)
    for name, content in {"a": "", "b": '{"experiment": "mnist"', "c": '{"name": "a", "key": 1}'}.items():
        (pending.UNSENT / f"{name}.json").write_text(content, encoding="utf-8")
    with logger.training("mnist_dense", config, {}, "checkpoint") as log:
        log.log_epoch(1, ROW)
    printed = sorted(capsys.readouterr().out.splitlines())
    assert len(printed) == 3
    for name, line in zip("abc", printed, strict=True):
        assert line.startswith(f"warning: mlruns/unsent/{name}.json: not a pending run of this version: ")
        assert line.endswith(f"; moved to mlruns/unsent/{name}.unreadable")
    assert [found.status for found in pending.read_all()] == ["FINISHED"]
    assert capsys.readouterr().out == ""


def test_training_that_starts_while_pending_runs_are_sent_is_not_taken_for_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: ModelConfig
) -> None:
    """Another process sends everything at the moment when the new run appears on disk."""
    write = pending.PendingRun.write
    seen = []

    def write_and_look(run: pending.PendingRun) -> None:
        write(run)
        with pending.claim(run) as claimed:
            seen.append(claimed)

    monkeypatch.setattr(server, "flush", lambda run: True)
    monkeypatch.setattr(pending.PendingRun, "write", write_and_look)
    with logger.training("mnist_dense", config, {}, "checkpoint"):
        pass
    assert seen == [None, None]


def test_flush_leaves_a_running_training_alone(folder: Path, config: ModelConfig) -> None:
    with logger.training("mnist_dense", config, {}, "checkpoint") as log:
        log.log_epoch(1, ROW)
        assert server.flush()
        assert [found.info.status for found in runs()] == ["RUNNING"]
    assert [found.info.status for found in runs()] == ["FINISHED"]


def test_flush_keeps_an_interrupted_training_until_its_checkpoint_is_gone(folder: Path, config: ModelConfig) -> None:
    """As when params changed: nothing resumes from a checkpoint that another training has removed."""
    checkpoint = folder / "checkpoint"
    checkpoint.touch()
    interrupt(config, checkpoint)
    assert server.flush()
    assert len(pending.read_all()) == 1
    checkpoint.unlink()
    assert server.flush()
    assert not list(pending.UNSENT.iterdir())
    assert [found.info.status for found in runs()] == ["KILLED"]


def test_flush_ends_the_run_of_a_training_whose_lock_is_free(folder: Path) -> None:
    """The system frees the locks of a process that SIGKILL ends."""
    pending.PendingRun(experiment="mnist", name="mnist_dense", status="RUNNING", checkpoint="checkpoint").write()
    assert server.flush()
    assert [found.info.status for found in runs()] == ["KILLED"]
    assert not list(pending.UNSENT.iterdir())


def test_claim_of_a_run_that_another_process_removed_gives_none(folder: Path, config: ModelConfig) -> None:
    run = pending.PendingRun(experiment="mnist", name="mnist_dense", status="FINISHED")
    run.write()
    with pending.claim(run) as claimed:
        assert claimed == run
        with pending.claim(run) as second:
            assert second is None
        claimed.remove()
    with pending.claim(run) as claimed:
        assert claimed is None
    assert not list(pending.UNSENT.iterdir())


def test_training_without_git_has_no_commit(folder: Path, monkeypatch: pytest.MonkeyPatch, config: ModelConfig) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(server, "flush", lambda run: True)
    with logger.training("mnist_dense", config, {}, "checkpoint") as log:
        assert "mlflow.source.git.commit" not in log.run.tags


def test_commit_is_the_projects_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without Git in another repository has no commit; neither has one that is not committed yet."""
    assert subprocess.run(["git", "init", "-q"], cwd=folder).returncode == 0
    commit(folder, "outer")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(inner)
    assert "mlflow.source.git.commit" not in logger._tags("train@mnist_dense")
    commit(folder, "with inner")
    tags = logger._tags("train@mnist_dense")
    assert tags["mlflow.source.git.commit"] == run(folder, "git", "rev-parse", "HEAD").stdout.strip()
