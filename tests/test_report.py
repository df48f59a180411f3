"""The page says what the metrics say."""

import json
from pathlib import Path

import pytest

from stages import params, report
from stages.console import UserError
from tests.conftest import write_params

METRICS = {
    "images": 20,
    "accuracy": 0.9067,
    "accuracy_low": 0.9,
    "accuracy_high": 0.91,
    "macro_f1": 0.9061,
    "validation_accuracy": 0.9123,
    "parameters": 79510,
    "epochs": 10,
}


def write(values: params.Params) -> None:
    for folder in ("reports/metrics", "data/counts"):
        Path(folder).mkdir(parents=True)
    Path("reports/published.yaml").write_text(
        "mnist_dense: {figure: 97 %, split: validation, source: 'https://example.com'}"
    )
    for name in values.models:
        unseen = {"unseen_images": 7, "unseen_accuracy": 0.5} if name == "imagenette_vgg16" else {}
        (Path("reports/metrics") / f"{name}.json").write_text(json.dumps({**METRICS, **unseen}))
    for name in values.datasets:
        (Path("data/counts") / f"{name}.json").write_text(json.dumps({"train": {"a": 3, "b": 1000}}))


def test_a_row_for_each_model_and_dataset(project: Path) -> None:
    write(params.load())
    report.report()
    page = Path("reports/README.md").read_text()
    assert (
        "| [`mnist_dense`](history/mnist_dense.csv) | mnist | dense | 79,510 | 10 | 91.23% | 90.67% (90.00% – 91.00%) "
        in page
    )
    assert "| [97 % validation](https://example.com) |" in page
    assert page.count("(history/") == 13
    assert "| cifar10 | train | 1,003 | 2 | 3 | 1,000 |" in page
    assert "on the 7 test images whose names are not of" in page
    assert "**Drawn samples: mnist, fashion_mnist, cifar10, imagenette, vgg16.**" in page


def test_the_caution_names_the_drawn_datasets_alone(project: Path) -> None:
    def change(values: dict[str, dict[str, dict[str, str]]]) -> None:
        for name in ("mnist", "cifar10", "imagenette"):
            values["datasets"][name]["source"] = "published"

    write_params(project, change)
    write(params.load())
    report.report()
    assert "**Drawn samples: fashion_mnist, vgg16.**" in Path("reports/README.md").read_text()


def test_a_missing_metric_is_one_line(project: Path) -> None:
    write(params.load())
    Path("reports/metrics/mnist_cnn.json").unlink()
    with pytest.raises(UserError, match=r"reports/metrics/mnist_cnn.json: missing; run `dvc repro`"):
        report.report()
