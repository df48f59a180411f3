"""`make verify`: what it clones."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import SAMPLE, commit, run
from tools.run import verify


@pytest.mark.parametrize("subfolder", ["", "project"])
def test_project_is_verified_wherever_it_lies_in_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], subfolder: str
) -> None:
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    (folder / "dvc.lock").write_bytes((SAMPLE / "dvc.lock").read_bytes())
    assert run(tmp_path, "git", "init", "-q").returncode == 0
    commit(tmp_path, "all")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(verify, "_reproduce", lambda clone: subprocess.Popen(["test", "-e", clone / "dvc.lock"]))
    verify.verify()
    assert "other than in the committed dvc.lock: none" in capsys.readouterr().out
