"""Experiments as DVC runs them: a row for each model, the best first; and their spread over seeds."""

import json
import re
import resource
import shlex
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dvc.api import DVCFileSystem

from tests.conftest import ROOT, CopyFolder, commit, run
from tools.compare import experiments
from tools.lib.git import Experiment

MODEL = "evaluate@mnist_dense"


@pytest.fixture(scope="module")
def repository(copy_fake_repository: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model trained at HEAD, with another seed, and with other learning rates."""
    folder = copy_fake_repository(tmp_path_factory.mktemp("repository"))
    dvc(folder, "exp", "run", "-n", "other-seed", "-S", "seed=1", MODEL)
    for name, rate in (("worse", 0.002), ("better", 0.0005)):
        dvc(folder, "exp", "run", "-n", name, "-S", "seed=42", "-S", f"models.mnist_dense.learning_rate={rate}", MODEL)
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
    """The metrics of a commit or an experiment according to DVC."""
    return json.loads(
        DVCFileSystem(str(folder), rev=rev).read_text("reports/metrics/mnist_dense.json", encoding="utf-8")
    )


def test_seeds_are_compared_if_nothing_else_differs(repository: Path) -> None:
    text = tool(repository, "tools.compare.seeds", "")
    found = [metrics(repository, rev) for rev in ("HEAD", "other-seed")]
    rows = cells(text)
    assert [row[:4] for row in rows] == [["mnist_dense", "", "validation", "2"], ["mnist_dense", "", "test", "2"]]
    for row, key in zip(rows, ("validation_accuracy", "accuracy"), strict=True):
        values = [entry[key] for entry in found]
        assert row[4] == f"{statistics.mean(values):.2%}"
        assert row[5] == f"{100 * statistics.stdev(values):.2f}"
        assert row[6] == f"{min(values):.2%} – {max(values):.2%}"
    assert "Left out, no second seed with the same params, code and data: " in text


def test_fine_tuned_models_are_compared_if_their_heads_differ_in_nothing_but_the_seed(tmp_path: Path) -> None:
    """The network that such a model starts from contains its head, whose bytes depend on the seed."""
    assert run(tmp_path, "git", "init", "-q").returncode == 0
    (tmp_path / "reports/metrics").mkdir(parents=True)
    for seed, units in ((1, 8), (2, 8), (1, 9), (2, 9)):
        models = {"head": {"units": units}, "tuned": {}}
        (tmp_path / "params.yaml").write_text(json.dumps({"seed": seed, "models": models}), encoding="utf-8")
        made = {"data/models/head.keras": f"head {seed} {units}", "data/records/network": f"network {seed} {units}"}
        head, network = ({path: md5} for path, md5 in made.items())
        tuned = {"data/models/tuned.keras": f"tuned {seed} {units}"}
        stages = {
            "train@head": locked({"seed": seed, "models.head": models["head"]}, {}, head),
            "join@network": locked({}, head, network),
            "train@tuned": locked({"seed": seed}, network, tuned),
            "evaluate@tuned": locked({}, tuned, {}),
        }
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
        accuracies = {"validation_accuracy": 0.9 + seed / 100, "accuracy": 0.8, "images": 100}
        (tmp_path / "reports/metrics/tuned.json").write_text(json.dumps(accuracies), encoding="utf-8")
        commit(tmp_path, f"{seed} {units}")
    command = [sys.executable, "-m", "tools.compare.seeds", "HEAD HEAD~1 HEAD~2 HEAD~3"]
    done = run(tmp_path, *command, PYTHONPATH=str(ROOT))
    assert [row[:5] for row in cells(done.stdout)] == [
        ["tuned", "", "validation", "2", "91.50%"],
        ["tuned", "", "test", "2", "80.00%"],
        ["tuned", "data", "validation", "2", "91.50%"],
        ["tuned", "data", "test", "2", "80.00%"],
    ], done.stderr


def locked(params: dict[str, Any], deps: dict[str, str], outs: dict[str, str]) -> dict[str, Any]:
    """An entry of dvc.lock."""
    read, made = ([{"path": path, "md5": md5} for path, md5 in found.items()] for found in (deps, outs))
    return {"cmd": "", "deps": read, "params": {"params.yaml": params}, "outs": made}


def test_named_experiments_are_the_only_ones_compared(repository: Path) -> None:
    assert len(cells(tool(repository, "tools.compare.seeds", "HEAD other-seed"))) == 2
    done = run(repository, sys.executable, "-m", "tools.compare.seeds", "worse other-seed")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no model was trained with two seeds; ")
    done = run(repository, sys.executable, "-m", "tools.compare.seeds", "wors")
    assert done.stderr.startswith("error: 'wors': no such revision; ")


def test_experiments_are_ranked_by_validation_accuracy(repository: Path) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]  # `dvc exp show` shows none afterwards
    assert run(repository, "git", *identity, "commit", "-q", "--allow-empty", "-m", "next").returncode == 0
    assert cells(tool(repository, "tools.compare.experiments")) == [
        ["mnist_dense", "better", "learning_rate=0.0005", "95.00%", "90.00%", "+5.00", "95.00%"],
        ["mnist_dense", "other-seed", "seed=1", "90.00%", "90.00%", "+0.00", "90.00%"],
        ["mnist_dense", "worse", "learning_rate=0.002", "80.00%", "90.00%", "−10.00", "80.00%"],
    ]


def test_documented_table_of_dvc_has_no_column_of_hashes(repository: Path) -> None:
    text = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ (dvc exp show .*)$", text, re.MULTILINE)
    done = run(repository, *shlex.split(command), "--all-commits", "--csv")  # another test commits
    header = done.stdout.partition("\n")[0]
    assert "better" in done.stdout and "learning_rate" in header, done.stderr
    assert not re.search(r"\b[0-9a-f]{32}\b", done.stdout), header


@pytest.mark.parametrize("command", [["tools.compare.experiments"], ["tools.compare.seeds", ""]])
def test_experiments_and_seeds_of_a_few_rows_take_a_second_or_two(repository: Path, command: list[str]) -> None:
    """Of processor time, also of Git: DVC, which reads every file of every experiment, took ten."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(cells(tool(repository, *command))) >= 2
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_models_that_head_lacks_stay_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trained = {"first": ["x", "y"], "second": ["y", "x"], "HEAD": []}

    def revision(rev: str, name: str = "HEAD") -> SimpleNamespace:
        accuracies = {"validation_accuracy": 0.9, "accuracy": 0.8}
        found = {model: SimpleNamespace(metrics=accuracies, seed=1) for model in trained[name]}
        return SimpleNamespace(metrics=found, trainings=found, params={}, commit="")

    monkeypatch.setattr(experiments, "Revision", revision)
    monkeypatch.setattr(experiments, "experiments", lambda: [Experiment(name, name) for name in ("first", "second")])
    experiments.show()
    assert [row[0] for row in cells(capsys.readouterr().out)] == ["x", "x", "y", "y"]
