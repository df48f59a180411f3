"""DVC experiments of one model as a user runs them, and what DVC and MLflow then show.

Takes minutes: every experiment trains, and the queue starts workers.
"""

import json
import re
from pathlib import Path
from typing import Any

import dvc.api
import mlflow
import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages.runtime.files import file_hash
from tests.conftest import CopyFolder, run, wait_for_queue

METRICS = "reports/metrics/mnist_dense.json"


def dvc_command(folder: Path, *arguments: str) -> str:
    done = run(folder, "dvc", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def experiment(folder: Path, *arguments: str) -> str:
    """Run an experiment and return its name."""
    said = dvc_command(folder, "exp", "run", *arguments)
    names = re.findall(r"Ran experiment\(s\): (\S+)", said)
    assert len(names) == 1, said
    return str(names[0])


def shown(folder: Path) -> dict[str, dict[str, Any]]:
    """The row of each experiment in `dvc exp show`."""
    return {row["Experiment"]: row for row in dvc.api.exp_show(str(folder)) if row["Experiment"]}


def runs(folder: Path) -> dict[str | None, Any]:
    """MLflow's runs of the model, by the name of their DVC experiment."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name("mnist")
    assert found is not None
    listed = client.search_runs([found.experiment_id])
    named = {run.data.tags.get("dvc_experiment"): run for run in listed}
    assert len(named) == len(listed)
    return named


@pytest.fixture(scope="module")
def clone(copy_reproduced: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_reproduced(tmp_path_factory.mktemp("clone"))


def test_experiments_here_and_in_the_queue_appear_in_dvc_and_mlflow(clone: Path) -> None:
    """Each has a row in `dvc exp show` and an MLflow run, with the same parameters and the same accuracy."""
    dvc_command(clone, "exp", "run", "--queue", "-S", "models.mnist_dense.learning_rate=0.03", "evaluate")
    dvc_command(clone, "queue", "start")
    assert wait_for_queue(clone) == ["Success"]
    here = experiment(clone, "-S", "train.epochs=2", "-S", "train.learning_rate=1e-05")

    assert run(clone, "python", "-m", "tools.release.sync").returncode == 0  # no report has run
    rows, logged = shown(clone), runs(clone)
    (queued,) = {name for name in rows if name != here} & set(logged)
    assert rows[queued]["models.mnist_dense.learning_rate"] == 0.03
    for name in (here, queued):
        tags, given = logged[name].data.tags, logged[name].data.params
        metrics = {key: value for key, value in rows[name].items() if key.startswith(METRICS)}
        accuracy = metrics.get(f"{METRICS}:accuracy", rows[name].get("accuracy"))
        if name == here:
            assert logged[name].data.metrics["test_accuracy"] == pytest.approx(accuracy)
        assert tags["stage"] == "train@mnist_dense"
        assert tags["dvc_baseline"] == run(clone, "git", "rev-parse", "HEAD").stdout.strip()
        assert int(given["epochs"]) == (2 if name == here else 30)
        assert float(given["learning_rate"]) == (
            1e-05 if name == here else rows[name]["models.mnist_dense.learning_rate"]
        )
        digest = logged[name].inputs.dataset_inputs[0].dataset.digest
        assert f"md5: {digest}" in (clone / "dvc.lock").read_text(encoding="utf-8")
    assert not list(clone.glob(".dvc/tmp/exps/**/mlflow.db"))
    lock = YAML(typ="safe").load(clone / "dvc.lock")["stages"]
    assert lock["train@mnist_dense"]["params"]["params.yaml"]["train"]["epochs"] == 2
    history = pd.read_csv(clone / "reports/history/mnist_dense.csv")
    assert list(history["epoch"]) == [1, 2]
    assert history["learning_rate"].iloc[0] == pytest.approx(1e-05)


def test_experiment_in_a_temporary_folder_leaves_the_work_tree_alone(clone: Path) -> None:
    """`exp diff` then shows the effect of the seed, and `exp apply` brings the experiment into the work tree."""
    for command in (["checkout", "-q", "."], ["clean", "-fdq", "reports"]):
        assert run(clone, "git", *command).returncode == 0
    before = (clone / "data/models/mnist_dense.keras").read_bytes()
    name = experiment(clone, "--temp", "-S", "seed=1", "evaluate")
    assert (clone / "data/models/mnist_dense.keras").read_bytes() == before
    assert runs(clone)[name].data.params["seed"] == "1"

    difference = json.loads(dvc_command(clone, "exp", "diff", "HEAD", name, "--json"))
    assert difference["params"]["params.yaml"] == {"seed": {"old": 42, "new": 1, "diff": -41}}
    assert "loss" in difference["metrics"][METRICS]
    dvc_command(clone, "exp", "apply", name)
    assert (clone / "data/models/mnist_dense.keras").read_bytes() != before
    assert file_hash(clone / "data/models/mnist_dense.keras", "md5") == runs(clone)[name].data.tags["model_md5"]
    # The cache has it: no run is new
    count = len(runs(clone))
    dvc_command(clone, "repro", "evaluate")
    assert len(runs(clone)) == count
