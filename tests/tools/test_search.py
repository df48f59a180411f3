"""`make search` on real DVC experiments of a pipeline that takes no time: kills, failures, pruning, parallel trials."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution

from stages.config import params
from stages.config.sections import ParameterConfig
from stages.runtime.errors import UserError
from tests.conftest import commit, copy_work_tree, run, write_params
from tests.data.test_folder import image, names, write
from tests.tools.fake_pipeline import fake_repository, write_fake_params
from tools.data.dataset import dataset
from tools.search import search
from tools.search.search import FOLDER, Search, current, identity, search_space

RATES = {"learning_rate": {"low": 0.0005, "high": 0.006, "log": True}}
FAILING = {
    "learning_rate": {"choices": [0.001, 0.007, 0.009]}
}  # the second fails, the loss of the third is not a number


def change(values: Any) -> None:
    values["train"]["epochs"] = None
    values["search"] = {"mnist_dense": RATES, "mnist_cnn": FAILING}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_repository(tmp_path_factory.mktemp("repository"), change)


def arguments(model: str, count: int, jobs: int = 1) -> list[str]:
    return [sys.executable, "-m", "tools.search.search", model, str(count), str(jobs)]


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


def opened(name: str = "mnist_dense") -> Search:
    FOLDER.mkdir(parents=True, exist_ok=True)
    return Search(params.load(), name)


@pytest.mark.usefixtures("ctrl_c")
def test_interrupt_of_trials_side_by_side_starts_no_others(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setattr(search, "FOLDER", tmp_path)  # the trials of other tests are not in it
    found = opened()
    begun = threading.Barrier(2, lambda: os.kill(os.getpid(), signal.SIGINT), timeout=60)

    def fail(trial: optuna.Trial) -> float:
        begun.wait()
        while not found._is_stopping:
            time.sleep(0.01)
        raise UserError("interrupted")

    monkeypatch.setattr(found, "_try", fail)
    with pytest.raises(SystemExit, match="interrupted after 0 of 30 trials"):
        found.run(30, 2)
    assert len(found.study.trials) == 2


@pytest.mark.usefixtures("ctrl_c")
def test_search_that_was_interrupted_and_killed_resumes_and_prunes(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    found = opened()
    for rate in (0.0021, 0.0022, 0.0023, 0.0024, 0.0025):  # enough for the pruner
        found.study.add_trial(
            optuna.trial.create_trial(
                params={"learning_rate": rate},
                distributions={"learning_rate": FloatDistribution(0.0005, 0.006, log=True)},
                value=0.8,
                intermediate_values={1: 0.8, 2: 0.8},
            )
        )
    found.study.enqueue_trial({"learning_rate": 0.0009})  # that of HEAD would not train again
    logs, digest = repository / ".dvc/tmp/search/mnist_dense", found.study.study_name

    interrupted = start(repository, logs / f"{digest}-5.log")
    refused = run(repository, *arguments("mnist_dense", 7))
    message = "error: search mnist_dense: another search of this model runs; wait for it, or raise its JOBS\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    interrupted.send_signal(signal.SIGINT)
    printed, said = interrupted.communicate(timeout=300)
    assert interrupted.returncode == 1
    assert "trial 5: started; learning_rate=0.0009; .dvc/tmp/search/" in printed
    assert "interrupted after 5 of 7 trials: the same command resumes" in said
    assert folders(repository) == []

    killed = start(repository, logs / f"{digest}-6.log")
    killed.kill()
    killed.communicate()
    opened().study.enqueue_trial({"learning_rate": 0.004})

    done = run(repository, *arguments("mnist_dense", 7))
    assert done.returncode == 0, done.stderr
    assert folders(repository) == []
    states = {(row["learning_rate"], row["state"]): row for row in rows(repository, "mnist_dense")[5:]}
    assert set(states) == {("0.0009", "fail"), ("0.0009", "complete"), ("0.004", "pruned")}
    assert states["0.0009", "complete"]["value"] == "0.91"
    best = f"search-mnist_dense-{digest}-{states['0.0009', 'complete']['number']}"
    assert experiments(repository) == {best}
    assert f"dvc exp apply {best}" in done.stdout
    assert (repository / "reports/search/mnist_dense-values.png").stat().st_size > 1000
    assert run(repository, "git", "status", "--porcelain", "--untracked-files=no").stdout == ""


def test_trials_in_parallel_fail_alone_and_are_not_repeated(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    for rate in FAILING["learning_rate"]["choices"]:
        opened("mnist_cnn").study.enqueue_trial({"learning_rate": rate})
    done = run(repository, *arguments("mnist_cnn", 3, jobs=2))
    assert done.returncode == 0, done.stderr
    found = {row["learning_rate"]: (row["state"], row["error"]) for row in rows(repository, "mnist_cnn")}
    assert found == {
        "0.001": ("complete", ""),
        "0.007": ("fail", "error: fake: no"),
        "0.009": ("fail", "the loss is not a number"),
    }
    (best,) = {name for name in experiments(repository) if "mnist_cnn" in name}
    assert run(repository, "dvc", "exp", "apply", best).returncode == 0
    metrics = json.loads((repository / "reports/metrics/mnist_cnn.json").read_text(encoding="utf-8"))
    assert metrics["validation_accuracy"] == 0.9
    assert run(repository, "git", "checkout", ".").returncode == 0
    again = run(repository, *arguments("mnist_cnn", 1))
    assert (again.returncode, "started" in again.stdout) == (0, False)


def test_trials_of_other_params_code_or_data_do_not_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dvc.yaml declares decides; an augmentation without options is a difference, too."""
    monkeypatch.chdir(repository)

    def digest(change_params: Callable[[Any], object] = lambda values: None) -> str:
        def both(values: Any) -> None:
            change(values)
            change_params(values)

        write_fake_params(repository, both)
        return opened("fashion_mnist_lenet").study.study_name

    changes: list[Callable[[Any], object]] = [
        lambda values: values["train"].update(epochs=3),
        lambda values: values["datasets"]["fashion_mnist"].update(synthetic={"train": 900, "test": 20}),
        lambda values: values["models"]["fashion_mnist_lenet"].update(augment=[{"name": "horizontal_flip"}]),
        lambda values: values["search"].update(fashion_mnist_lenet={"batch_size": {"choices": [8, 16]}}),
    ]
    before = digest()
    found = {before, *map(digest, changes)}
    module = repository / "stages/models/lenet.py"
    code = module.read_text(encoding="utf-8")
    module.write_text(code.replace("relu", "tanh"), encoding="utf-8")
    found.add(digest())
    module.write_text(code, encoding="utf-8")
    assert len(found) == len(changes) + 2
    # The values of params.yaml that a search replaces decide nothing
    assert digest(lambda values: values["models"]["fashion_mnist_lenet"].update(learning_rate=0.005)) != before
    with pytest.raises(UserError, match=re.escape("params.yaml: train.batch_size: it overrides the values")):
        digest(lambda values: values["train"].update(batch_size=64))
    message = "params.yaml: models.fashion_mnist_lenet.synthetic.batch_size: it overrides the values"
    with pytest.raises(UserError, match=re.escape(message)):
        digest(lambda values: values["models"]["fashion_mnist_lenet"]["synthetic"].update(batch_size=64))
    assert digest() == before


def test_new_image_in_a_folder_begins_a_new_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stages of dvc.yaml: params.yaml and the code are as before, and so is what was made of the images."""
    monkeypatch.chdir(tmp_path)
    copy_work_tree(tmp_path)
    photos = write(tmp_path.with_name("pets"), names(4))
    dataset("pets", str(photos), None, None, {})
    assert run(tmp_path, "git", "add", ".").returncode == 0

    def digest() -> str:
        return identity("pets_cnn", search_space(params.load(), "pets_cnn"))

    before = digest()
    assert digest() == before
    write(photos, {"cat/new.jpg": image(9)})
    assert digest() != before


def test_first_trial_has_the_values_of_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, lambda values: values["train"].update(epochs=None))
    values = params.load()
    space = search_space(values, "mnist_dense")
    assert current(values.models["mnist_dense"], space) == {"learning_rate": 0.001, "batch_size": 128}
    space["batch_size"] = ParameterConfig(choices=[16, 32])
    assert current(values.models["mnist_dense"], space) is None


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
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the reason is: here, a `dvc` that does nothing."""
    monkeypatch.chdir(repository)
    (tmp_path / "dvc").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "dvc").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="search fashion_mnist_lenet: no trial succeeded; their logs are in"):
        search.search("fashion_mnist_lenet", "9", "1")
    assert capsys.readouterr().out.count("DVC stored no result of search-fashion_mnist_lenet-") == 3


@pytest.mark.parametrize("text", ["text", "text\n", "{}\n"])
def test_corrupt_study_is_one_sentence(repository: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(repository)
    path = repository / ".dvc/tmp/search/mnist_dense.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        search.search("mnist_dense", "1", "1")
    path.unlink()
    assert str(caught.value) == ".dvc/tmp/search/mnist_dense.journal: corrupt; remove it to start again"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("mnist_dens", "1", "1"), "params.yaml: models: there is no 'mnist_dens'; did you mean"),
        (("mnist_dense", "0", "1"), "TRIALS: '0': it should be a whole number from 1 to 99999"),
        (("mnist_dense", "1", "two"), "JOBS: 'two': it should be a whole number from 1 to 99999"),
    ],
)
def test_wrong_argument_is_one_sentence(project: Path, given: tuple[str, str, str], message: str) -> None:
    write_params(project, lambda values: values["train"].update(epochs=None))
    assert run(project, "git", "init", "-q").returncode == 0
    with pytest.raises(UserError, match=re.escape(message)):
        search.search(*given)
