"""The words of a review, on real repositories: two commits whose models differ, and two whose models do not.

No model is trained: their predictions are written here, measured by the project, and given to DVC with `dvc commit`.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import evaluate
from tests.conftest import commit, copy_work_tree, run, write_params
from tools import review

IMAGES = 400
MODELS = ["mnist_dense", "mnist_cnn", "fashion_mnist_lenet"]
# Which images a model has wrong at the first commit and at the second
WRONG = {
    "mnist_dense": (range(80), range(40)),
    "mnist_cnn": (range(80), range(130)),
    "fashion_mnist_lenet": (range(80), range(5, 86)),
}


def predictions(wrong: range, images: int = IMAGES) -> pd.DataFrame:
    """Predictions of a model that takes the class after the true one for the images in `wrong`."""
    true = np.arange(images) % 10
    predicted = (true + np.isin(np.arange(images), wrong)) % 10
    probabilities = np.full((images, 10), 0.02)
    probabilities[np.arange(images), predicted] = 0.82
    kind = pd.CategoricalDtype([str(label) for label in range(10)])
    frame = pd.DataFrame(
        {
            "key": [f"{image:05}" for image in range(images)],
            "true": pd.Categorical(true.astype(str), dtype=kind),
            "predicted": pd.Categorical(predicted.astype(str), dtype=kind),
            "probabilities": list(probabilities),
        }
    )
    frame.attrs = {"parameters": 79510, "precision": "float32"}
    return frame


def write(folder: Path, name: str, wrong: range, images: int = IMAGES) -> None:
    """Everything that `train` and `evaluate` write of a model, as if it had made these predictions."""
    frame = predictions(wrong, images)
    for path in ("data/models", "data/predictions"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    for stale in (folder / f"data/models/{name}.keras", folder / f"data/predictions/{name}.parquet"):
        stale.unlink(missing_ok=True)  # DVC's links to its cache are read-only
    (folder / f"data/models/{name}.keras").write_text(str(wrong))
    frame.to_parquet(folder / f"data/predictions/{name}.parquet")
    measured = {**evaluate.metrics(frame), "validation_accuracy": 0.8, "epochs": 1}
    (folder / f"reports/metrics/{name}.json").write_text(json.dumps(measured, indent=2))
    for plot in (evaluate.confusion, evaluate.classes, evaluate.reliability):
        (folder / "reports/plots" / plot.__name__).mkdir(parents=True, exist_ok=True)
        plot(frame).to_csv(folder / f"reports/plots/{plot.__name__}/{name}.csv", index=False)


def keep(folder: Path, *stages: str) -> None:
    """Let DVC record what lies in the work tree as the outcome of these stages."""
    done = run(folder, "dvc", "commit", "--force", *stages)
    assert done.returncode == 0, done.stderr


def only_three(values: Any) -> None:
    values["models"] = {name: values["models"][name] for name in MODELS}
    values["gates"] = {}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tags `first` and `second`, whose models differ, and `third`, whose models are those of `second`."""
    folder = tmp_path_factory.mktemp("repository")
    copy_work_tree(folder)
    for path in ("reports/metrics", "reports/history", "reports/plots"):
        shutil.rmtree(folder / path)
    (folder / "dvc.lock").unlink()
    write_params(folder, only_three)
    for path in (
        "reports/metrics",
        "reports/history",
        "data/raw/mnist",
        "data/records/mnist",
        "data/records/fashion_mnist",
    ):
        (folder / path).mkdir(parents=True)
    for name in MODELS:
        (folder / f"reports/history/{name}.csv").write_text("epoch,loss\n1,1\n")
    for table in ("counts", "skipped"):
        (folder / f"data/{table}").mkdir()
        (folder / f"data/{table}/mnist.json").write_text("{}")
    stages = ["preprocess@mnist", *(f"{stage}@{name}" for name in MODELS for stage in ("train", "evaluate"))]
    for tag, column in (("first", 0), ("second", 1)):
        records = folder / "data/records/mnist/features.json"
        records.unlink(missing_ok=True)
        records.write_text(tag)
        for name, wrong in WRONG.items():
            write(folder, name, wrong[column])
        if tag == "second":
            write_params(folder, second)
        keep(folder, *stages)
        commit(folder, tag)
        assert run(folder, "git", "tag", tag).returncode == 0
    (folder / "README.md").write_text("changed\n")
    commit(folder, "third")
    assert run(folder, "git", "tag", "third").returncode == 0
    return folder


def second(values: Any) -> None:
    """What the second commit has in params.yaml."""
    only_three(values)
    values["seed"] = 7
    values["models"]["mnist_cnn"].update(filters=[24], schedule="cosine")


def clone(repository: Path, folder: Path, cache: Path | None = None) -> Path:
    """A clone at `third`, with a cache that has everything, or with one of its own, which has nothing."""
    assert run(folder.parent, "git", "clone", "-q", str(repository), str(folder)).returncode == 0
    if cache:
        (folder / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
        assert run(folder, "dvc", "checkout", "-q", "--allow-missing").returncode == 0
    return folder


def reviewed(folder: Path, base: str, **environment: str) -> str:
    done = run(folder, sys.executable, "-m", "tools.review", base, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    found = [row for row in rows if row[0] == f"`{first}`"]
    assert len(found) == 1, text
    return found[0][1:]


def test_models_that_differ_get_a_word_each(repository: Path) -> None:
    text = reviewed(repository, "first")
    assert cells(text, "mnist_dense") == ["80.00%", "90.00%", "+10.00", "0", "40", "< 0.001", "**better**"]
    assert cells(text, "mnist_cnn") == ["80.00%", "67.50%", "−12.50", "50", "0", "< 0.001", "**worse**"]
    assert cells(text, "fashion_mnist_lenet") == ["80.00%", "79.75%", "−0.25", "6", "5", "1.000", "no evidence"]
    assert "adjusted for 3 models (Holm)" in text
    assert "On drawn samples, which say nothing of the real data." in text


def test_what_else_differs_is_told(repository: Path) -> None:
    text = reviewed(repository, "first", PLOTS_URL="https://example.com/plots")
    assert cells(text, "seed") == ["`42`", "`7`"]
    assert cells(text, "models.mnist_cnn.filters") == ["`[25]`", "`[24]`"]
    assert cells(text, "models.mnist_cnn.schedule") == ["–", '`"cosine"`']
    assert len(set(cells(text, "data/records/mnist"))) == 2
    assert "data/raw" not in text and "fashion_mnist`" not in text
    assert "[Plots of both](https://example.com/plots)" in text


def test_models_that_do_not_differ_are_one_line(repository: Path) -> None:
    text = reviewed(repository, "second")
    assert text.startswith("Nothing differs from `second` (")
    assert text.count("\n") == 1


def test_a_clone_without_predictions_has_the_metrics(repository: Path, tmp_path: Path) -> None:
    text = reviewed(clone(repository, tmp_path / "clone"), "first")
    assert cells(text, "mnist_dense") == ["80.00%", "90.00%", "+10.00", "–", "–", "–", "not tested"]
    missing = "predictions of first and workspace that neither the cache nor a remote has"
    assert f"Not tested, because of {missing}: `mnist_dense`, `mnist_cnn`, `fashion_mnist_lenet`." in text
    assert cells(text, "seed") == ["`42`", "`7`"]
    assert "`make plots BASE=first`" in text


def test_a_clone_reads_predictions_from_the_remote(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone")
    (folder / ".dvc/config.local").write_text(
        f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {repository / '.dvc/cache'}\n"
    )
    text = reviewed(folder, "first")
    assert cells(text, "mnist_dense")[-1] == "**better**"


def test_models_that_are_new_gone_or_not_trained(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone", repository / ".dvc/cache")

    def change(values: Any) -> None:
        second(values)
        values["models"]["mnist_wide"] = {**values["models"]["mnist_dense"], "units": [300]}
        values["models"]["mnist_late"] = {**values["models"]["mnist_dense"], "epochs": 30}
        values["models"]["mnist_dense"]["epochs"] = 3
        del values["models"]["fashion_mnist_lenet"]

    write_params(folder, change)
    write(folder, "mnist_wide", range(20))
    (folder / "reports/history/mnist_wide.csv").write_text("epoch,loss\n1,1\n")
    keep(folder, "train@mnist_wide", "evaluate@mnist_wide")
    text = reviewed(folder, "third")
    assert "Added: `mnist_wide` (95.00%, 92.40% to 96.74%), `mnist_late` (not measured)." in text
    assert "Removed: `fashion_mnist_lenet` (79.75%, " in text
    assert "Without metrics in the workspace: `mnist_late`." in text
    assert "Trained before the params of the workspace were changed: `mnist_dense`." in text
    assert cells(text, "models.mnist_dense.epochs") == ["`10`", "`3`"]
    assert "`models.mnist_wide`" not in text


def test_other_test_images_and_other_machines_are_told(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone", repository / ".dvc/cache")
    write(folder, "mnist_dense", range(40), images=300)
    write(folder, "mnist_cnn", range(131))
    keep(folder, "train@mnist_cnn", "evaluate@mnist_cnn")
    text = reviewed(folder, "third")
    assert "Not tested, because of other test images: `mnist_dense`." in text
    assert cells(text, "mnist_cnn")[3:] == ["1", "0", "1.000", "no evidence"]
    assert "so on another kind of machine or with other packages: `mnist_cnn`." in text


def test_a_revision_that_is_not_there_is_one_line(repository: Path) -> None:
    for base, message in (("nowhere", "nowhere: unknown Git revision 'nowhere'; "), ("", "the revision: empty; ")):
        done = run(repository, sys.executable, "-m", "tools.review", base)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {message}")
        assert done.stderr.count("\n") == 1


def test_the_make_targets_of_the_workflow(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone", repository / ".dvc/cache")
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != "installed.txt":
            (folder / ".venv" / entry.name).symlink_to(entry)
    shutil.copy(folder / "requirements.txt", folder / ".venv/installed.txt")

    def make(*arguments: str, **environment: str) -> str:
        done = run(folder, "make", "--silent", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert make("pull") == "no remote is configured: nothing to pull\n"
    assert make("review", BASE="first") == reviewed(folder, "first")
    assert "dvc_plots/index.html" in make("plots", BASE="first")
    assert make("gate", BASE="first") == "gate: params.yaml has none\n"
    assert run(folder, "git", "status", "--short").stdout == ""
    hostile = run(folder, "make", "--silent", "review", BASE="main;touch${IFS}here")
    assert hostile.returncode != 0
    assert not (folder / "here").exists()


def test_the_paired_test_is_that_of_a_fair_coin() -> None:
    found = review.paired(predictions(range(9)), predictions(range(9, 10)).sample(frac=1, random_state=0))
    assert isinstance(found, review.Test)
    assert (found.lost, found.gained) == (1, 9)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert review.paired(predictions(range(9)), predictions(range(9))) == review.Test(lost=0, gained=0, p=1)
    shifted = predictions(range(9))
    shifted["true"] = shifted["true"].to_numpy()[::-1]
    assert review.paired(predictions(range(9)), shifted) == "other labels of the test images"


def test_p_values_are_adjusted_after_holm() -> None:
    assert review.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert review.holm([0.9, 0.02]) == pytest.approx([0.9, 0.04])
    assert review.holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert review.holm([]) == []
