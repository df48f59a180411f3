"""`make measure`: several seeds on real data, with provenance, in a repository whose stages take no time."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from stages.config import params
from stages.reporting.measured import markdown, outdated, read, training_params
from stages.runtime import paths
from stages.runtime.errors import UserError
from tests.conftest import ROOT, CopyFolder, run, write_params
from tests.test_preprocess_folder import add_folder
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


def test_models_are_trained_once_for_each_seed_and_marked_if_params_or_the_computation_change(repository: Path) -> None:
    command = [sys.executable, "-m", "tools.compare.measure"]
    before = (repository / "params.yaml").read_text(encoding="utf-8")
    done = run(repository, *command, "mnist_dense", "42 1", "")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Running stage 'train@mnist_dense'") == 2
    assert (repository / "params.yaml").read_text(encoding="utf-8") == before
    seeds = sorted(path.name for path in (repository / "reports/measured").glob("seed-*"))
    assert seeds == ["seed-1", "seed-42"]
    facts = json.loads((repository / "reports/measured/seed-1/runs.json").read_text(encoding="utf-8"))["mnist_dense"]
    assert facts["seconds"] > 0 < facts["cpu_seconds"] and "python" in facts["machine"]
    assert facts["params"]["model"]["units"] == [100] and facts["params"]["kernels"] == "native"
    assert rows(repository)["`mnist_dense`"][:3] == ["2", "90.00% ± 0.00", "90.00% ± 0.00"]

    done = run(repository, *command, "mnist_dense", "2", "1")
    assert (done.returncode, done.stderr.count("Running stage 'train@mnist_dense'")) == (0, 1), done.stderr
    whole = json.loads((repository / "reports/measured/whole/seed-2/runs.json").read_text(encoding="utf-8"))
    assert whole["mnist_dense"]["params"]["train"]["validation_fraction"] == 0
    assert rows(repository)["`mnist_dense`"][:5] == ["2", "90.00% ± 0.00", "90.00% ± 0.00", "", "90.00%"]

    # As after an upgrade, which DVC does not see
    changes = {"seed-42": {}, "seed-1": {"probe": "of other code"}, "whole/seed-2": {"probe": "of other code"}}
    for seed, change in changes.items():
        file = repository / f"reports/measured/{seed}/runs.json"
        facts = json.loads(file.read_text(encoding="utf-8"))["mnist_dense"] | {"seconds": 2000.0} | change
        file.write_text(json.dumps({"mnist_dense": facts}), encoding="utf-8")
    done = run(repository, *command, "mnist_dense", "", "")  # too slow for more seeds than those with a result
    assert (done.returncode, done.stderr.count("Running stage 'train@mnist_dense'")) == (0, 2), done.stderr
    assert sorted(path.name for path in (repository / "reports/measured").glob("seed-*")) == ["seed-1", "seed-42"]
    assert rows(repository)["`mnist_dense`"][:5] == ["2", "90.00% ± 0.00", "90.00% ± 0.00", "", "90.00%"]

    tables = [sys.executable, "-c", "from tools.compare.measure import write_tables; write_tables()"]
    (repository / "params.yaml").write_text(before.replace("seed: 42", "seed: 43"), encoding="utf-8")
    assert run(repository, *tables).returncode == 0
    assert list(rows(repository)) == ["`mnist_dense`"]
    (repository / "params.yaml").write_text(before.replace("threads: 2", "threads: 1"), encoding="utf-8")
    assert run(repository, *tables).returncode == 0
    assert list(rows(repository)) == ["`mnist_dense` \\*"]
    (repository / "params.yaml").write_text(before, encoding="utf-8")
    # Code of the evaluation computes the accuracies that the rows show
    metrics = repository / "stages/evaluation/metrics.py"
    code = metrics.read_text(encoding="utf-8")
    metrics.write_text(code.replace("predictions.correct.mean()", "predictions.correct[1:].mean()"), encoding="utf-8")
    assert code != metrics.read_text(encoding="utf-8")
    probes = "from tools.compare.measure import update_probes; update_probes(['mnist_dense'])"
    assert run(repository, sys.executable, "-c", probes).returncode == 0
    assert run(repository, *tables).returncode == 0
    assert list(rows(repository)) == ["`mnist_dense` \\*"]


def test_unknown_model_or_seed_is_one_line(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(repository, sys.executable, "-m", "tools.compare.measure", "mnist_dens", "", "")
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: models: there is no 'mnist_dens'; did you mean 'mnist_dense'?")
    monkeypatch.chdir(repository)
    for seed in ("one", "-1", "1.5", "4294967296"):
        with pytest.raises(UserError) as error:
            measure.measure("mnist_dense", f"42 {seed}", "")
        assert str(error.value) == f"SEED: '{seed}': it should be a whole number from 0 to 4294967295"


def test_params_without_validation_images_measure_the_whole_split_alone(project: Path) -> None:
    write_params(project, lambda values: values["train"].update(validation_fraction=0))
    with pytest.raises(UserError, match=r"^params\.yaml: train\.validation_fraction: 0 leaves no images to validate"):
        measure.measure("mnist_dense", "", "")


def test_seeds_with_and_without_test_time_augmentation_make_one_row(project: Path) -> None:
    """After a change of `test_time`, until all seeds are repeated; a killed first run of a seed has no facts."""
    for seed, extra in ((1, {"accuracy_without_tta": 0.9}), (42, {})):
        folder = project / f"reports/measured/seed-{seed}"
        (folder / "metrics").mkdir(parents=True)
        metrics = {"accuracy": 0.9, "validation_accuracy": 0.9, **extra}
        (folder / "metrics/mnist_dense.json").write_text(json.dumps(metrics), encoding="utf-8")
        (folder / "runs.json").write_text(json.dumps({"mnist_dense": {"cpu_seconds": 60}}), encoding="utf-8")
    (project / "reports/measured/seed-2/metrics").mkdir(parents=True)
    row = markdown(read(), {}, {}, outdated()).splitlines()[-1]
    assert row == "| `mnist_dense` \\* | 2 | 90.00% ± 0.00 | 90.00% ± 0.00 |  |  | – | 1.0 |"


def test_results_on_own_images_are_marked_when_these_change(project: Path) -> None:
    def add_own(values: Any) -> None:
        add_folder(values)
        values["models"]["flowers_cnn"] = {**values["models"]["mnist_cnn"], "dataset": "flowers"}

    write_params(project, add_own)
    values = params.load()
    folder = project / "reports/measured/seed-42"
    folder.mkdir(parents=True)
    facts = {"params": training_params(values, "flowers_cnn"), "probe": None, "records": "1.dir"}
    (folder / "runs.json").write_text(json.dumps({"flowers_cnn": facts}), encoding="utf-8")
    for md5, marked in (("1.dir", set()), ("2.dir", {"flowers_cnn"})):
        stage = {"outs": [{"path": "data/records/flowers", "md5": md5}]}
        Path("dvc.lock").write_text(json.dumps({"stages": {"preprocess_folder@flowers": stage}}), encoding="utf-8")
        os.utime("dvc.lock", (1, 1))  # DVC has finished it
        assert outdated() == marked


def test_second_run_in_the_same_clone_is_one_line(repository: Path) -> None:
    with FileLock(repository / f"{measure.WORKTREE}.lock"):
        done = run(repository, sys.executable, "-m", "tools.compare.measure", "mnist_dense", "1", "")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: make measure runs in this clone already")


def test_limit_of_seeds_that_are_far_apart_is_valid(project: Path) -> None:
    for seed, accuracy in ((42, 0.1), (1, 0.65), (2, 0.66)):
        folder = project / f"reports/measured/seed-{seed}"
        (folder / "metrics").mkdir(parents=True)
        (folder / "metrics/cifar10_cnn.json").write_text(
            json.dumps({"validation_accuracy": accuracy}), encoding="utf-8"
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
