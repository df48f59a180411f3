"""`make measure`: several seeds on real data, with provenance, in a repository whose stages take no time."""

import json
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from stages.config import params
from stages.runtime import paths
from tests.conftest import ROOT, CopyFolder, run
from tools.compare import measure


@pytest.fixture(scope="module")
def repository(copy_fake_repository: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_fake_repository(tmp_path_factory.mktemp("repository"))


def rows(folder: Path) -> dict[str, list[str]]:
    """The cells of the table of measured results by its first column."""
    text = (folder / "reports/measured/README.md").read_text(encoding="utf-8")
    lines = text[text.index(measure.BEGIN) : text.index(measure.END)].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    return {first: rest for first, *rest in cells}


def test_models_are_trained_with_every_seed_once_and_marked_when_code_changes(repository: Path) -> None:
    command = [sys.executable, "-m", "tools.compare.measure"]
    before = (repository / "params.yaml").read_text(encoding="utf-8")
    done = run(repository, *command, "mnist_dense", "")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Running stage 'train@mnist_dense'") == 3
    assert (repository / "params.yaml").read_text(encoding="utf-8") == before
    seeds = sorted(path.name for path in (repository / "reports/measured").glob("seed-*"))
    assert seeds == ["seed-1", "seed-2", "seed-42"]
    stages = (repository / "reports/measured/seed-2/dvc.lock").read_text(encoding="utf-8")
    assert "seed: 2" in stages and "source: real" in stages and "train@mnist_cnn" not in stages
    facts = json.loads((repository / "reports/measured/seed-2/runs.json").read_text(encoding="utf-8"))
    assert facts["mnist_dense"]["seconds"] > 0 < facts["mnist_dense"]["cpu_seconds"]
    assert "python" in facts["mnist_dense"]["machine"]
    assert list(rows(repository)) == ["`mnist_dense`"]
    assert rows(repository)["`mnist_dense`"][:3] == ["3", "90.00% ± 0.00", "90.00% ± 0.00"]

    done = run(repository, *command, "mnist_dense mnist_cnn", "42")
    assert "Running stage 'train@mnist_dense'" not in done.stderr, done.stderr
    first = (repository / "reports/measured/seed-42/runs.json").read_text(encoding="utf-8")
    assert done.stderr.count("Running stage 'train@mnist_cnn'") == 1
    assert [row[0] for row in rows(repository).values()] == ["3", "1"]

    with (repository / "stages/models/dense.py").open("a", encoding="utf-8") as module:
        module.write("# a comment\n")
    assert run(repository, "dvc", "repro", "train@mnist_dense").returncode == 0  # dvc.lock has the code of now
    done = run(repository, *command, "mnist_cnn", "42")
    assert done.returncode == 0, done.stderr
    again = json.loads((repository / "reports/measured/seed-42/runs.json").read_text(encoding="utf-8"))
    assert again["mnist_dense"] == json.loads(first)["mnist_dense"]
    assert list(rows(repository)) == ["`mnist_dense` \\*", "`mnist_cnn` \\*"]


def test_unknown_model_is_one_line(repository: Path) -> None:
    done = run(repository, sys.executable, "-m", "tools.compare.measure", "mnist_dens", "")
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: models: there is no 'mnist_dens'; did you mean 'mnist_dense'?")


@pytest.mark.parametrize("seeds", ["one", "-1", "1.5", "4294967296"])
def test_seed_that_is_none_is_one_line(repository: Path, seeds: str) -> None:
    done = run(repository, sys.executable, "-m", "tools.compare.measure", "mnist_dense", f"42 {seeds}")
    expected = f"error: SEED: '{seeds}': it should be a whole number from 0 to 4294967295\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_second_run_in_the_same_clone_is_one_line(repository: Path) -> None:
    with FileLock(repository / f"{measure.WORKTREE}.lock"):
        done = run(repository, sys.executable, "-m", "tools.compare.measure", "mnist_dense", "1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: make measure runs in this clone already")


def test_limit_of_seeds_that_are_far_apart_is_valid(project: Path) -> None:
    metrics = json.loads((ROOT / "reports/measured/seed-42/metrics/cifar10_cnn.json").read_text(encoding="utf-8"))
    for seed, accuracy in ((42, 0.1), (1, 0.65), (2, 0.66)):
        folder = project / f"reports/measured/seed-{seed}"
        (folder / "metrics").mkdir(parents=True)
        (folder / "metrics/cifar10_cnn.json").write_text(
            json.dumps(metrics | {"validation_accuracy": accuracy}), encoding="utf-8"
        )
        (folder / "runs.json").write_text(json.dumps({"cifar10_cnn": {}}), encoding="utf-8")
    measure.write_limits()
    assert params.load().gates["cifar10_cnn"].min_accuracy == 0.001


def test_tables_and_gates_are_those_of_the_measured_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of code or params that makes other models has to be marked: `make measured-tables`."""
    monkeypatch.chdir(ROOT)
    copies = []
    for number, path in enumerate(measure.TABLES):
        copies.append(tmp_path / str(number))
        copies[-1].write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    tables = measure.TABLES
    monkeypatch.setattr(measure, "TABLES", copies)
    measure.write_tables()
    assert [copy.read_text(encoding="utf-8") for copy in copies] == [
        path.read_text(encoding="utf-8") for path in tables
    ]
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params.yaml")
    paths.PARAMS.write_text(before, encoding="utf-8")
    measure.write_limits()
    assert paths.PARAMS.read_text(encoding="utf-8") == before
