"""Results are read as they were written, whatever the names of the classes."""

import re
from pathlib import Path

import pytest

from stages.config import params
from stages.reporting import results
from stages.runtime.errors import UserError
from tests.reporting.project import AWKWARD, MODELS, make_predictions, select


@pytest.fixture
def folder(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(evaluated)
    return evaluated


def test_class_names_stay_as_they_are(folder: Path) -> None:
    model = results.models(params.load())[-1]
    assert model.name == "mnist_dense"
    assert list(model.tables["classes"]["class"])[: len(AWKWARD)] == AWKWARD
    assert list(model.tables["confusion"]["predicted"])[: len(AWKWARD)] == AWKWARD


def test_a_model_on_features_has_the_images_of_their_dataset(folder: Path) -> None:
    models = {model.name: model for model in results.models(params.load())}
    assert {name: models[name].image_dataset for name in MODELS} == dict(
        zip(MODELS, ("mnist", "cifar10", "imagenette"), strict=True)
    )
    assert models[MODELS[1]].md5 == f"{0:032x}"  # the first by name


def test_leaderboard_is_in_one_order_own_images_first(folder: Path) -> None:
    """By dataset, accuracy and name, whatever the order of params.yaml."""
    config = params.load()
    names = [model.name for model in results.models(config)]
    assert names == ["cifar10_small_cnn_augmented", "imagenette_vgg16", "mnist_dense"]
    turned = config.model_copy(update={"models": dict(reversed(config.models.items())), "folders": {"mnist": None}})
    assert [model.name for model in results.models(turned)] == ["mnist_dense", *names[:2]]
    assert [dataset.name for dataset in results.datasets(turned)] == ["mnist", "cifar10", "imagenette"]


def test_a_model_on_synthetic_data_has_no_published_result(folder: Path) -> None:
    found = results.models(params.load())
    assert [model.name for model in found if model.published is not None] == ["mnist_dense"]
    assert not any(model.not_in_pretraining for model in found if model.synthetic)


def test_misclassified_images_are_in_the_order_of_confidence() -> None:
    confidence = [0.9, 0.6, 0.8, 0.8, 0.7]
    predicted = make_predictions(
        [1, 0, 0, 0, 0], [[1 - value, value] for value in confidence], ["x", "y"], ["right", "e", "d", "c", "b"]
    )
    found = results.misclassified(predicted)
    assert list(found["key"]) == ["c", "d", "b", "e"]
    assert found["confidence"].tolist() == pytest.approx([0.8, 0.8, 0.7, 0.6])
    assert set(found["true"]) == {"x"} and set(found["predicted"]) == {"y"}
    assert results.misclassified(select(predicted, predicted.correct)).empty


def test_missing_predictions_are_one_line(folder: Path) -> None:
    path = Path("data/predictions/mnist_dense.parquet")
    path.rename("aside")
    try:
        with pytest.raises(
            UserError, match=r"data/predictions/mnist_dense.parquet: missing; run `dvc repro train@mnist_dense`"
        ):
            results.models(params.load())
    finally:
        Path("aside").rename(path)


CORRUPT = {
    "data/counts/mnist.json": [b"", b"{", b"{}", b'{"train": {"0": 1}, "test": {"0": 1}}', b'{"train": 1}', b"\xff"],
    "data/skipped/mnist.json": [b"", b"[]"],
    "data/predictions/mnist_dense.parquet": [b"", b"PAR1 and so on PAR1"],
    "reports/metrics/mnist_dense.json": [b"", b'{"accuracy": 0.', b"{}", b"[]", b"1", b"null"],
    "reports/history/mnist_dense.csv": [b"", b"epoch,loss\n1,2\n", b"\x00\xff", b'"'],
    "reports/plots/confusion/mnist_dense.csv": [b"", b"actual,predicted,count\n0,0,1\n"],
    "reports/plots/classes/mnist_dense.csv": [b"class,precision,recall,f1,images\n", b"class,images\na,b\n"],
    "reports/plots/reliability/mnist_dense.csv": [b"low,high,confidence,accuracy,images\n0,1,?,1,1\n"],
    "reports/published.yaml": [b"mnist_dense: [", b"[]", b"mnist_dense: {value: 97}", b"\xff"],
}


@pytest.mark.parametrize("file", CORRUPT)
def test_a_corrupt_file_is_named(folder: Path, file: str) -> None:
    path = Path(file)
    good = path.read_bytes()
    try:
        for content in CORRUPT[file]:
            path.write_bytes(content)
            with pytest.raises(UserError, match=f"^{re.escape(file)}: \\S") as caught:
                results.models(params.load()), results.datasets(params.load())
            assert str(caught.value).isprintable(), content
            assert "`dvc repro --force --single-item " in str(caught.value) or path.suffix == ".yaml"
    finally:
        path.write_bytes(good)
