"""DVC's list of locks as a killed DVC leaves it."""

from pathlib import Path

from tests.conftest import ROOT, run


def test_corrupt_list_of_locks_is_removed(tmp_path: Path) -> None:
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert run(tmp_path, *command).returncode == 0
    locks = tmp_path / ".dvc/tmp/rwlock"
    locks.write_text("", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: echo a > b, outs: [b]}}", encoding="utf-8")
    corrupt = run(tmp_path, "dvc", "repro")
    assert "rwlock'. JSON structure is corrupted" in corrupt.stderr
    assert (
        "corrupt, because a DVC was killed"
        in run(tmp_path, "python", "-m", "tools.lib.unlock", PYTHONPATH=str(ROOT)).stdout
    )
    assert run(tmp_path, "dvc", "repro").returncode == 0
    before = locks.read_text(encoding="utf-8")
    assert run(tmp_path, "python", "-m", "tools.lib.unlock", PYTHONPATH=str(ROOT)).stdout == ""
    assert locks.read_text(encoding="utf-8") == before
