"""The writer of records: the same bytes in any process, completely or not at all."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages import preprocess
from stages.data import writer
from stages.data.examples import Example
from stages.runtime.errors import UserError
from tests.conftest import ROOT
from tests.data.archives import generate


def pixels(count: int, shape: tuple[int, ...], split: str = "train") -> list[Example]:
    rng = np.random.default_rng(len(split))
    return [(split, f"{i:05d}", rng.integers(0, 256, shape, np.uint8), i % 3) for i in range(count)]


def test_other_process_writes_the_same_bytes(project: Path) -> None:
    """Pixels and JPEG files, in a process with another order of Python's sets and of protobuf's maps."""
    names = ["mnist", "imagenette"]
    for name in names:
        generate(name)
        preprocess.preprocess(name)
    ours = hashes(Path("data/records"))
    shutil.rmtree("data/records")
    code = f"from stages import preprocess\nfor name in {names}: preprocess.preprocess(name)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert hashes(Path("data/records")) == ours
    assert len(ours) == 10  # each: a shard per split, features, info, class names


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_failed_write_leaves_the_previous_records(project: Path) -> None:
    writer.write("synthetic", ["a", "b", "c"], ["train"], pixels(5, (4, 4, 1)))
    before = sorted((path.name, path.read_bytes()) for path in Path("data/records/synthetic").iterdir())
    with pytest.raises(UserError, match="synthetic: split 'test' has no images"):
        writer.write("synthetic", ["a", "b", "c"], ["train", "test"], pixels(9, (4, 4, 1)))
    with pytest.raises(UserError, match="synthetic: split 'train' has two images named '0000"):
        writer.write("synthetic", ["a", "b", "c"], ["train"], pixels(5, (4, 4, 1)) * 2)
    assert sorted((path.name, path.read_bytes()) for path in Path("data/records/synthetic").iterdir()) == before
    assert [path.name for path in Path("data/records").iterdir()] == ["synthetic"]


def test_writer_reports_progress(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stages.runtime.progress.INTERVAL", 0.0)
    writer.write("synthetic", ["a", "b", "c"], ["train"], pixels(9, (4, 4, 1)))
    assert "synthetic: 9 images [" in capsys.readouterr().err
