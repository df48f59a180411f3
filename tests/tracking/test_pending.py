"""Pending runs on disk: corrupt ones, locked ones, and those of interrupted trainings."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stages.config.models import ModelConfig
from stages.tracking import logger, pending, server
from tests.conftest import ROOT, commit, run
from tests.tracking.conftest import DIGEST, ROW, runs


def interrupt(config: ModelConfig, checkpoint: Path) -> None:
    """Start a training of which Ctrl-C leaves one epoch."""
    with suppress(KeyboardInterrupt), logger.training("mnist_dense", config, {}, str(checkpoint)) as log:
        log.log_epoch(1, ROW)
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "content",
    [
        "",  # after a power cut
        '{"experiment": "mnist"',
        '{"experiment": "mnist", "name": "mnist_dense", "key": "of another version"}',
        '{"experiment": "mnist", "name": "mnist_dense", "id": "0123456789abcdef0123456789abcdef"}',
    ],
)
def test_pending_run_unreadable_is_moved_away_with_one_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: ModelConfig, content: str
) -> None:
    monkeypatch.setattr(server, "flush", lambda run=None: True)
    for name in ("run.json", "record.json"):
        (folder / "mlruns/unsent/abc").mkdir(parents=True)
        (folder / "mlruns/unsent/abc" / name).write_text(content)
        with logger.training("mnist_dense", config, {}, "checkpoint") as log:
            log.log_epoch(1, ROW)
        printed = capsys.readouterr().out
        assert printed.startswith(f"warning: mlruns/unsent/abc/{name}: not a pending run of this version: ")
        assert printed.count("\n") == 1 and "; moved to mlruns/unreadable/abc-" in printed
    assert [found.status for found in pending.read_all()] == ["FINISHED", "FINISHED"]


def test_flush_leaves_a_running_training_alone(folder: Path, config: ModelConfig) -> None:
    code = "import sys; from stages.tracking import server; sys.exit(not server.flush())"
    with logger.training("mnist_dense", config, {}, "checkpoint") as log:
        log.log_epoch(1, ROW)
        done = run(folder, sys.executable, "-c", code, PYTHONPATH=str(ROOT))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
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


def test_flush_ends_the_run_of_a_training_killed_by_sigkill(folder: Path, config: ModelConfig) -> None:
    code = (
        "import os; from stages.tracking import logger; from tests.tracking.conftest import model_config\n"
        "with logger.training('mnist_dense', model_config(), {}, 'checkpoint') as log:\n"
        "    log.log_epoch(1, {'loss': 1.0}); os.kill(os.getpid(), 9)\n"
    )
    assert run(folder, sys.executable, "-c", code, PYTHONPATH=str(ROOT)).returncode == -9
    assert [found.info.status for found in runs()] == ["RUNNING"]
    assert server.flush()
    assert [found.info.status for found in runs()] == ["KILLED"]
    assert not list(pending.UNSENT.iterdir())


def test_claim_of_a_run_that_another_process_removed_gives_none(folder: Path, config: ModelConfig) -> None:
    run = pending.PendingRun(experiment="mnist", name="mnist_dense")
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
    (inner / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(inner)
    assert logger._commit() is None
    commit(folder, "with inner")
    assert logger._commit() == run(folder, "git", "rev-parse", "HEAD").stdout.strip()


def test_training_while_dvc_rewrites_its_lock_logs_the_dataset(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: ModelConfig
) -> None:
    """Another DVC truncates dvc.lock and writes it again, piece by piece, for two seconds."""
    monkeypatch.setattr(server, "flush", lambda run: True)
    code = """
import sys, time
from pathlib import Path
lock = Path("dvc.lock")
text = lock.read_text()
for _ in range(5):
    with lock.open("w") as file:
        for start in range(0, len(text), 25):
            file.write(text[start : start + 25])
            file.flush()
            print(flush=True)
            time.sleep(0.1)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE)
    assert writer.stdout
    writer.stdout.readline()
    start = time.monotonic()
    with logger.training("mnist_dense", config, {}, "checkpoint") as log:
        assert log.run.dataset == {"name": "mnist", "digest": DIGEST}
    assert writer.wait() == 0
    assert time.monotonic() - start < 10
