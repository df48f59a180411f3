"""`make search` on real DVC experiments of a pipeline that takes no time: kills, failures, pruning, parallel trials."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from stages.config import params
from stages.config.search import ParameterConfig
from stages.runtime.errors import UserError
from tests.conftest import commit, run, write_params
from tests.tools.fake_pipeline import fake_repository, write_fake_params
from tools.lib import search_space, search_study
from tools.lib.search_study import SearchStudy
from tools.search import search

RATES = {"learning_rate": {"low": 0.0005, "high": 0.006, "log": True}}
GRID = {"learning_rate": {"choices": [0.001, 0.007, 0.009]}}  # the second fails, the loss of the third is not a number


def change(values: Any) -> None:
    values["train"]["epochs"] = None
    values["search"] = {"mnist_dense": RATES, "mnist_cnn": GRID}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_repository(tmp_path_factory.mktemp("repository"), change)


def arguments(model: str, count: int, jobs: int = 1, sampler: str = "tpe") -> list[str]:
    return [sys.executable, "-m", "tools.search.search", model, str(count), str(jobs), sampler]


def start(folder: Path, log: Path) -> "subprocess.Popen[str]":
    """Start a search whose first trial takes minutes, and wait for its first epoch."""
    process = subprocess.Popen(
        ["env", "FAKE_SECONDS=60", *arguments("mnist_dense", 7)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 500
    while not log.exists() or "Running stage 'train@mnist_dense'" not in log.read_text(encoding="utf-8"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process


def experiments(folder: Path) -> set[str]:
    refs = run(folder, "git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/search-*").stdout
    return set(refs.split())


def folders(folder: Path) -> list[Path]:
    """Folders of trials that were not removed."""
    return list(folder.glob(".dvc/tmp/exps/standalone/tmp*"))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"reports/search/{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study(name: str = "mnist_dense", sampler: str = "tpe", count: int = 7) -> SearchStudy:
    return SearchStudy(params.load(), name, sampler, count)


@pytest.mark.usefixtures("ctrl_c")
def test_search_that_was_interrupted_and_killed_resumes_and_prunes(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    found = study()
    for rate in (0.0021, 0.0022, 0.0023, 0.0024, 0.0025):  # enough for the pruner
        found.study.add_trial(
            optuna.trial.create_trial(
                params={"learning_rate": rate},
                distributions=search_space.distributions(found.space),
                value=0.8,
                intermediate_values={1: 0.8, 2: 0.8},
            )
        )
    found.study.enqueue_trial({"learning_rate": 0.0009})  # that of HEAD would not train again
    logs = repository / ".dvc/tmp/search/mnist_dense"

    interrupted = start(repository, logs / "tpe-5.log")
    refused = run(repository, *arguments("mnist_dense", 7))
    message = "error: search mnist_dense: another search of this model runs; wait for it, or raise its JOBS\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate(timeout=300)
    assert interrupted.returncode == 1
    assert "interrupted after 5 of 7 trials: the same command resumes" in said
    assert folders(repository) == []

    killed = start(repository, logs / "tpe-6.log")
    killed.kill()
    killed.communicate()
    found = study()
    orphan = found.study.trials[6].user_attrs["process"][0]
    assert psutil.pid_exists(orphan)
    found.study.enqueue_trial({"learning_rate": 0.004})

    done = run(repository, *arguments("mnist_dense", 7))
    assert done.returncode == 0, done.stderr
    assert not psutil.pid_exists(orphan)
    assert folders(repository) == []
    states = {(row["learning_rate"], row["state"]): row for row in rows(repository, "mnist_dense-tpe")[5:]}
    assert set(states) == {("0.0009", "complete"), ("0.004", "pruned")}
    assert states["0.0009", "complete"]["validation_accuracy"] == "0.91"
    best = f"search-mnist_dense-tpe-{states['0.0009', 'complete']['trial']}"
    assert experiments(repository) == {best}
    assert f"dvc exp apply {best}" in done.stdout
    assert (repository / "reports/search/mnist_dense-tpe-values.png").stat().st_size > 1000
    assert run(repository, "git", "status", "--porcelain", "--untracked-files=no").stdout == ""


def test_failed_trials_in_parallel_do_not_end_the_search(repository: Path) -> None:
    done = run(repository, *arguments("mnist_cnn", 3, jobs=2, sampler="grid"))
    assert done.returncode == 0, done.stderr
    found = {row["learning_rate"]: (row["state"], row["error"]) for row in rows(repository, "mnist_cnn-grid")}
    assert found == {
        "0.001": ("complete", ""),
        "0.007": ("failed", "error: fake: no"),
        "0.009": ("failed", "the loss is not a number"),
    }
    (best,) = {name for name in experiments(repository) if "mnist_cnn" in name}
    assert run(repository, "dvc", "exp", "apply", best).returncode == 0
    metrics = json.loads((repository / "reports/metrics/mnist_cnn.json").read_text(encoding="utf-8"))
    assert metrics["validation_accuracy"] == 0.9


@pytest.fixture
def without_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the test is no DVC repository."""
    monkeypatch.setattr(search_study, "identity", lambda name, space: {})


@pytest.mark.usefixtures("without_dvc")
def test_interrupted_trials_do_not_change_the_values_that_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    for interrupt in (None, 3):
        (folder := tmp_path / str(interrupt)).mkdir()
        monkeypatch.chdir(folder)
        write_params(folder, lambda values: values["train"].update(epochs=None))
        found = study()
        values: list[Any] = []
        while len(values) < 9:
            trial = found.ask()
            assert trial is not None
            if trial.number == interrupt:
                found = study()  # as in the next process
                found.put_back(trial.number)
                continue
            values.append(trial.params)
            found.study.tell(trial, 1 - abs(trial.params["learning_rate"] - 0.003))
        tried.append(values)
    assert tried[0] == tried[1]
    assert tried[0][0] == {"learning_rate": 0.001, "batch_size": 128}  # params.yaml's own come first


def test_trials_of_other_params_code_or_data_do_not_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dvc.yaml declares decides; an augmentation without options is a difference, too."""
    monkeypatch.chdir(repository)

    def write(change_params: Callable[[Any], object]) -> None:
        def both(values: Any) -> None:
            change(values)
            change_params(values)

        write_fake_params(repository, both)

    def refused(message: str, change_params: Callable[[Any], object]) -> None:
        write(change_params)
        with pytest.raises(UserError, match=re.escape(f"fashion_mnist_lenet.db: its trials had {message}: ")):
            study("fashion_mnist_lenet")
        write_fake_params(repository, change)
        study("fashion_mnist_lenet")

    study("fashion_mnist_lenet").study.add_trial(optuna.trial.create_trial(value=0.5))
    refused("train.epochs = null, now it is 3", lambda values: values["train"].update(epochs=3))
    name = "datasets.fashion_mnist.synthetic.train"
    refused(
        f"{name} = 40, now it is 900",
        lambda values: values["datasets"]["fashion_mnist"].update(synthetic={"train": 900, "test": 20}),
    )
    augmented = [{"name": "horizontal_flip"}]
    refused(
        'models.fashion_mnist_lenet.augment.0.name = –, now it is "horizontal_flip"',
        lambda values: values["models"]["fashion_mnist_lenet"].update(augment=augmented),
    )
    module = repository / "stages/models/lenet.py"
    code = module.read_text(encoding="utf-8")
    module.write_text(code.replace("relu", "tanh"), encoding="utf-8")
    done = run(repository, *arguments("fashion_mnist_lenet", 1))
    assert (done.returncode, "its trials had another stages/models: restore that, or" in done.stderr) == (1, True)
    module.write_text(code, encoding="utf-8")
    write(lambda values: values["train"].update(batch_size=64))
    with pytest.raises(UserError, match=re.escape("params.yaml: train.batch_size: it overrides the values")):
        study("fashion_mnist_lenet")
    write_fake_params(repository, change)


def test_search_refuses_what_dvc_would_lose(repository: Path, tmp_path: Path) -> None:
    """New code that Git does not have, and a shallow clone, in which a search would run its first trial for ever."""
    new = repository / "stages/models/new.py"
    new.touch()
    done = run(repository, *arguments("mnist_cnn", 1))
    message = "error: stages/models/new.py: Git does not have this file, so it is absent in experiments: run `git add "
    assert (done.returncode, done.stderr.startswith(message)) == (1, True)
    new.unlink()
    commit(repository, "second")
    shallow = tmp_path / "shallow"
    assert run(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{repository}", str(shallow)).returncode == 0
    done = run(shallow, *arguments("mnist_cnn", 1))
    message = "error: this is a shallow clone, in which DVC loses experiments: run `git fetch --unshallow`\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_search_ends_if_dvc_stores_no_results(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the reason is: here, a `dvc` that does nothing."""
    monkeypatch.chdir(repository)
    (tmp_path / "dvc").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "dvc").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="search mnist_cnn: DVC ran 3 trials and stored no result; see"):
        search.search("mnist_cnn", "3", "1", "tpe")


def test_corrupt_study_is_one_sentence(project: Path) -> None:
    assert run(project, "git", "init", "-q").returncode == 0
    path = project / ".dvc/tmp/search/mnist_dense.db"
    path.parent.mkdir(parents=True)
    path.write_text("text", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        search.search("mnist_dense", "1", "1", "tpe")
    assert str(caught.value) == (
        ".dvc/tmp/search/mnist_dense.db: file is not a database; if the disk is full, free some space, or remove the "
        "file to start again, which also removes the experiments of the trials"
    )


@pytest.mark.usefixtures("without_dvc")
def test_grid_has_at_most_as_many_points_as_trials_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {
        "learning_rate": ParameterConfig(low=0.001, high=0.1, log=True),
        "batch_size": ParameterConfig(choices=[16, 32, 64, 128]),
        "epochs": ParameterConfig(low=3, high=4),
    }
    points = search_space.grid(space, 12)
    assert len(points) == 12
    assert {point["epochs"] for point in points} == {3, 4}
    assert {round(float(point["learning_rate"] or 0), 9) for point in points} == {0.001, 0.01, 0.1}
    assert {point["batch_size"] for point in points} == {16, 128}
    assert len(search_space.grid({"batch_size": space["batch_size"]}, 12)) == 4

    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, lambda values: values["train"].update(epochs=None))
    found, tried = study(sampler="grid", count=4), []
    while trial := found.ask():
        tried.append(trial.params)
        found.study.tell(trial, state=TrialState.FAIL)
    assert tried == search_space.grid(found.space, 4)
    assert len(tried) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("mnist_dens", "1", "1", "tpe"), "params.yaml: models: there is no 'mnist_dens'; did you mean"),
        (("mnist_dense", "0", "1", "tpe"), "TRIALS: '0': it should be a whole number from 1 to 99999"),
        (("mnist_dense", "1", "1", "random"), "SAMPLER: 'random': it should be one of tpe, grid"),
    ],
)
def test_wrong_argument_is_one_sentence(project: Path, given: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        search.search(*given)
