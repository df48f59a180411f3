"""The text of a review: two commits whose models differ, and two whose models do not. No model is trained."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.evaluation import metrics
from stages.evaluation.predictions import Predictions
from tests.conftest import CopyFolder, commit, run
from tests.reporting.project import select
from tests.tools.fake_pipeline import reproduce, write_fake_params
from tools.lib import significance


def second(values: Any) -> None:
    """params.yaml of the second commit: misclassified images of the three models change from 40 to 20, 90 and 41."""
    values["source"] = "real"
    for name, rate in (("mnist_dense", 0.0005), ("mnist_cnn", 0.00225), ("fashion_mnist_lenet", 0.001025)):
        values["models"][name]["learning_rate"] = rate
    values["models"]["mnist_cnn"]["filters"] = [24]
    values["gates"] = {}


@pytest.fixture(scope="module")
def repository(copy_fake_repository: CopyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tags `first` and `second`, whose models differ, and `third`, whose models are those of `second`."""
    folder = copy_fake_repository(tmp_path_factory.mktemp("repository"))
    for tag in ("first", "second", "third"):
        if tag == "second":
            write_fake_params(folder, second)
            reproduce(folder)
        (folder / "README.md").write_text(tag, encoding="utf-8")
        commit(folder, tag)
        assert run(folder, "git", "tag", tag).returncode == 0
    return folder


def clone(repository: Path, folder: Path, cache: Path | None = None) -> Path:
    """A clone at `third`, with a full cache, or with an empty one of its own."""
    assert run(folder.parent, "git", "clone", "-q", str(repository), str(folder)).returncode == 0
    if cache:
        (folder / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
        assert run(folder, "dvc", "checkout", "-q", "--allow-missing").returncode == 0
    return folder


def reviewed(folder: Path, base: str, **environment: str) -> str:
    done = run(folder, sys.executable, "-m", "tools.compare.review", base, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    found = [row for row in rows(text) if row[0] == f"`{first}`"]
    assert len(found) == 1, text
    return found[0][1:]


def test_changed_models_get_a_verdict_on_validation_and_a_paired_test(repository: Path) -> None:
    text = reviewed(repository, "first", PLOTS_URL="https://example.com/plots")
    validation = ["90.00%", "95.00%", "+5.00", "0.020", "**better**"]
    assert cells(text, "mnist_dense") == [*validation, "90.00%", "95.00%", "0", "20", "< 0.001"]
    validation = ["90.00%", "77.50%", "−12.50", "< 0.001", "**worse**"]
    assert cells(text, "mnist_cnn") == [*validation, "90.00%", "77.50%", "50", "0", "< 0.001"]
    validation = ["90.00%", "89.75%", "−0.25", "1.000", "no evidence"]
    assert cells(text, "fashion_mnist_lenet") == [*validation, "90.00%", "89.75%", "1", "0", "1.000"]
    assert "adjusted for 3 models (Holm)" in text
    assert "synthetic" not in text.replace('`"synthetic"`', "")
    assert cells(text, "source") == ['`"synthetic"`', '`"real"`']
    assert cells(text, "models.mnist_cnn.filters") == ["`[25]`", "`[24]`"]
    assert len(set(cells(text, "data/records/mnist"))) == 2
    assert "[Plots of both](https://example.com/plots)" in text
    assert "Both sides were produced on: processor a." in text


def test_models_that_do_not_differ_are_one_sentence(repository: Path) -> None:
    text = reviewed(repository, "second")
    assert text.startswith("Nothing differs from `second` (")
    assert "|" not in text


def test_clone_without_predictions_has_the_metrics(repository: Path, tmp_path: Path) -> None:
    text = reviewed(clone(repository, tmp_path / "clone"), "first")
    assert cells(text, "mnist_dense")[:4] == ["90.00%", "95.00%", "+5.00", "0.020"]
    assert cells(text, "mnist_dense")[-3:] == ["–", "–", "–"]
    missing = "no predictions of first in the cache or a remote"
    assert f"No paired test, {missing}: `fashion_mnist_lenet`, `mnist_cnn`, `mnist_dense`." in text
    assert "`make plots BASE=first`" in text


def test_model_trained_on_all_images_has_its_test_accuracy(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone")
    path = folder / "reports/metrics/mnist_dense.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    left = {key: value for key, value in found.items() if not key.startswith("validation")}
    path.write_text(json.dumps(left | {"accuracy": 0.96}), encoding="utf-8")
    text = reviewed(folder, "third")
    assert cells(text, "mnist_dense")[:7] == ["95.00%", "–", "–", "–", "–", "95.00%", "96.00%"]
    assert "No metrics in the workspace" not in text


def test_clone_reads_predictions_from_the_remote(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone")
    (folder / ".dvc/config.local").write_text(
        f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {repository / '.dvc/cache'}\n",
        encoding="utf-8",
    )
    assert cells(reviewed(folder, "first"), "mnist_dense")[-3:] == ["0", "20", "< 0.001"]


def test_added_and_removed_models_are_listed(repository: Path, tmp_path: Path) -> None:
    folder = clone(repository, tmp_path / "clone", repository / ".dvc/cache")

    def change(values: Any) -> None:
        second(values)
        values["models"]["mnist_wide"] = {**values["models"]["mnist_dense"], "units": [300]}
        del values["models"]["fashion_mnist_lenet"]

    def more(values: Any) -> None:
        change(values)
        values["models"]["mnist_late"] = {**values["models"]["mnist_dense"], "epochs": 30}
        values["models"]["mnist_dense"]["epochs"] = 3

    write_fake_params(folder, change)
    reproduce(folder)
    write_fake_params(folder, more)
    text = reviewed(folder, "third")
    assert "Added: `mnist_wide` (validation 95.00%, test 95.00%), `mnist_late` (not evaluated)." in text
    assert "Removed: `fashion_mnist_lenet` (validation 89.75%, test 89.75%)." in text
    assert "No metrics in the workspace: `mnist_late`." in text
    assert cells(text, "models.mnist_dense.epochs") == ["`10`", "`3`"]
    assert "`models.mnist_wide`" not in text


@pytest.mark.parametrize("file", ["dvc.lock", "reports/metrics/mnist_dense.json", "params.yaml"])
def test_marks_of_a_merge_are_one_line(repository: Path, tmp_path: Path, file: str) -> None:
    folder = clone(repository, tmp_path / "clone", repository / ".dvc/cache")
    path = folder / file
    first, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([first, *rest[:3], "<<<<<<< HEAD\n", *rest[3:]]), encoding="utf-8")
    done = run(folder, sys.executable, "-m", "tools.compare.review", "HEAD")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: workspace: {file}: corrupt: ") and done.stderr.count("\n") == 1


def test_unknown_revision_is_one_line(repository: Path) -> None:
    for base in ("nowhere", "", "review_cnn@v1.0.0"):  # the last is a tag, not DVC's name of a stage
        done = run(repository, sys.executable, "-m", "tools.compare.review", base)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {base!r}: no such revision; ")
        assert done.stderr.count("\n") == 1


def predictions(wrong: range, images: int = 400) -> Predictions:
    """Predictions of a model that misclassifies the images in `wrong`."""
    true = (np.arange(images) % 10).astype(np.int32)
    predicted = ((true + np.isin(np.arange(images), wrong)) % 10).astype(np.int32)
    keys = np.array([f"{image:05}" for image in range(images)], dtype=object)
    classes = [str(label) for label in range(10)]
    return Predictions(keys, true, predicted, np.zeros((images, 10), np.float32), classes, "0", 1, "float32", 400)


def test_paired_test_is_that_of_a_fair_coin() -> None:
    shuffled = select(predictions(range(9, 10)), np.random.default_rng(0).permutation(400))
    p = 2 * (1 + 10) / 2**10
    assert significance.paired_test(predictions(range(9)), shuffled) == pytest.approx((1, 9, p))
    assert significance.paired_test(predictions(range(9)), predictions(range(9))) == (0, 0, 1)
    other = predictions(range(9))
    other.true[:] = other.true[::-1].copy()
    for second, reason in (
        (predictions(range(9), 300), "other test images"),
        (other, "other labels of the test images"),
    ):
        with pytest.raises(significance.Untestable, match=reason):
            significance.paired_test(predictions(range(9)), second)


def test_p_values_are_adjusted_after_holm() -> None:
    for given, adjusted in (([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.9, 0.02], [0.9, 0.04]), ([0.6, 0.7], [1, 1])):
        found = significance.holm({str(place): p for place, p in enumerate(given)})
        assert found == {str(place): pytest.approx(p) for place, p in enumerate(adjusted)}


def test_accuracies_of_few_images_are_tested_exactly() -> None:
    """3 of 4 against 1 of 4: Fisher's tea, 34 of 70 tables are at least as unlikely."""
    assert significance.accuracy_test((0.75, 4), (0.25, 4)) == pytest.approx(34 / 70)
    low, high = metrics.wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
