"""Experiments as DVC runs them, a row for each model, and over seeds."""

import json
import statistics
import sys
from pathlib import Path

import pytest
from dvc.api import DVCFileSystem

from tests.conftest import commit, copy_work_tree, run, write_params

MODEL = "evaluate@mnist_dense"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model trained at HEAD, with another seed, and with another batch size; one experiment that waits."""
    folder = tmp_path_factory.mktemp("repository")
    copy_work_tree(folder)
    write_params(folder)
    dvc(folder, "repro", MODEL)
    commit(folder, "baseline")
    dvc(folder, "exp", "run", "--queue", "-n", "waiting", "-S", "seed=9", MODEL)
    dvc(folder, "exp", "run", "-n", "other-seed", "-S", "seed=1", MODEL)
    dvc(folder, "exp", "run", "-n", "small", "-S", "seed=42", "-S", "models.mnist_dense.batch_size=16", MODEL)
    return folder


def dvc(folder: Path, *arguments: str) -> None:
    done = run(folder, "dvc", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(folder: Path, *arguments: str) -> str:
    done = run(folder, sys.executable, "-m", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def cells(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def metrics(folder: Path, rev: str) -> dict[str, float]:
    """What DVC itself says of a commit or an experiment."""
    return json.loads(DVCFileSystem(str(folder), rev=rev).read_text("reports/metrics/mnist_dense.json"))


def test_seeds_are_compared_where_nothing_else_differs(repository: Path) -> None:
    text = tool(repository, "tools.seeds", "")
    found = [metrics(repository, rev) for rev in ("HEAD", "other-seed")]
    rows = cells(text)
    assert [row[:4] for row in rows] == [["mnist_dense", "", "test", "2"], ["mnist_dense", "", "validation", "2"]]
    for row, key in zip(rows, ("accuracy", "validation_accuracy"), strict=True):
        values = [entry[key] for entry in found]
        assert row[4] == f"{statistics.mean(values):.2%}"
        assert row[5] == f"{100 * statistics.stdev(values):.2f}"
        assert row[6] == f"{min(values):.2%} – {max(values):.2%}"
    assert "Left out, without another seed of the same params, code and data: small." in text


def test_experiments_can_be_named(repository: Path) -> None:
    assert len(cells(tool(repository, "tools.seeds", "HEAD other-seed"))) == 2
    done = run(repository, sys.executable, "-m", "tools.seeds", "small other-seed")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no model is trained with two seeds; ")
    done = run(repository, sys.executable, "-m", "tools.seeds", "smal")
    assert done.stderr.startswith("error: smal: unknown Git revision 'smal'; ")


def test_an_experiment_is_a_row_for_each_model_that_it_trained(repository: Path) -> None:
    text = tool(repository, "tools.experiments")
    assert max(map(len, text.splitlines())) <= 120
    rows = {row[0]: row[1:] for row in cells(text)}
    assert set(rows) == {"other-seed", "small", "waiting"}
    assert rows["other-seed"][:2] == ["seed=1", "mnist_dense"]
    assert rows["small"][:2] == ["batch_size=16", "mnist_dense"]
    assert rows["waiting"][:2] == ["seed=9", "queued"]
    base, small = metrics(repository, "HEAD"), metrics(repository, "small")
    points = f"{100 * (small['accuracy'] - base['accuracy']):+.2f}".replace("-", "−")
    assert rows["small"][3:] == [f"{small['accuracy']:.2%}", f"{base['accuracy']:.2%}", points]
