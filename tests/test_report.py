"""The stage `report`: its files, the same bytes in every process."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import report
from stages.reporting import drawings
from stages.runtime import paths
from stages.runtime.errors import UserError
from tests.conftest import ROOT


def test_a_missing_metric_is_one_line_before_any_work(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(evaluated)
    path = Path("reports/metrics/mnist_dense.json")
    text = path.read_text(encoding="utf-8")
    path.unlink()
    try:
        with pytest.raises(
            UserError, match=r"reports/metrics/mnist_dense.json: missing; run `dvc repro evaluate@mnist_dense`"
        ):
            report.report()
    finally:
        path.write_text(text, encoding="utf-8")


def test_the_bytes_are_the_same_in_another_process(reported: Path, tmp_path: Path) -> None:
    """With another seed of Python's hashes, another configuration of Matplotlib, and no drawings to take."""
    outputs = ("README.md", "index.html", "drawings")
    shutil.copytree(reported, tmp_path / "copy", ignore=shutil.ignore_patterns(*outputs))
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.fonttype: path\nsavefig.bbox: tight\n", encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "1",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "stages.report"],
        cwd=tmp_path / "copy",
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0
    assert [
        line for line in done.stderr.splitlines() if not line.startswith(("explanations: ", "figures: "))
    ] == []  # but progress
    assert hashes(tmp_path / "copy/reports") == hashes(reported / "reports")


def test_only_what_changed_is_drawn_again(reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of all else are the same."""
    monkeypatch.chdir(shutil.copytree(reported, tmp_path / "copy"))
    before, kept = hashes(Path("reports")), set(paths.DRAWINGS.rglob("*.npz"))
    history = paths.history("mnist_dense")
    history.write_text(history.read_text(encoding="utf-8").replace("0.", "0.1"), encoding="utf-8")
    report.report()
    assert len(set(paths.DRAWINGS.rglob("*.npz")) - kept) == 1
    after = hashes(Path("reports"))
    assert {name for name in before if before[name] != after.get(name)} == {"history/mnist_dense.csv", "index.html"}


def test_reports_of_experiments_that_share_drawings_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc queue start -j 2` may run two that draw the same, or one whose code is other code and clears the cache."""
    monkeypatch.chdir(tmp_path)
    other = [sys.executable, "-c", "from stages.reporting.drawings import kept; kept(sorted, 'ba')"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    save = np.savez_compressed

    def second_report(file: Any, *values: np.ndarray) -> None:
        save(file, *values)
        subprocess.run(other, env=environment, check=True)

    monkeypatch.setattr(np, "savez_compressed", second_report)
    assert drawings.kept(sorted, "ba") == ["a", "b"]
    assert [path.suffix for path in paths.DRAWINGS.rglob("*") if path.is_file()] == [".npz"]
    monkeypatch.setattr(np, "savez_compressed", lambda *_: shutil.rmtree(paths.DRAWINGS))
    assert drawings.kept(sorted, "dc") == ["c", "d"]


def hashes(folder: Path) -> dict[str, str]:
    """The MD5 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}
