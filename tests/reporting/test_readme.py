"""reports/README.md says what the metrics say."""

from dataclasses import replace
from pathlib import Path

import pytest

from stages.config import params
from stages.config.schema import Params
from stages.evaluation import metrics
from stages.reporting import build, measured, page, results

METRICS = {
    **dict.fromkeys(set(metrics.METRICS) - {"accuracy_without_tta"}, 0.5),
    "images": 20,
    "accuracy": 0.9067,
    "accuracy_low": 0.9,
    "accuracy_high": 0.91,
    "macro_f1": 0.9061,
    "validation_accuracy": 0.9123,
    "parameters": 79510,
    "epochs": 10,
}
SUBSET = {"not_in_pretraining_images": 7, "not_in_pretraining_accuracy": 0.5}


def all_models(config: Params) -> list[results.Model]:
    """Every model of params.yaml with the metrics above; only mnist_dense has a published result."""
    published = results.PublishedResult(value="97 %", split="validation", source="https://example.com")
    return [
        results.Model(
            name=name,
            config=model,
            image_dataset=model.dataset,
            metrics={**METRICS, **(SUBSET if model.dataset in config.features else {})},
            num_classes=10,
            tables={},
            misclassified=None,
            md5="",
            published=published if name == "mnist_dense" else None,
            not_in_pretraining=config.not_in_pretraining.get(config.image_dataset(name)),
        )
        for name, model in config.models.items()
    ]


def render(models: list[results.Model], datasets: list[results.Dataset], synthetic: list[str]) -> str:
    return page.render("README.md.j2", models=models, datasets=datasets, synthetic=synthetic)


def test_every_model_and_dataset_has_a_row(project: Path) -> None:
    datasets = [results.Dataset("cifar10", {"train": {"a": 3, "b": 1000}}, synthetic=False)]
    models = all_models(params.load())
    text = render(models, datasets, ["mnist", "vgg16"])
    assert (
        "| [`mnist_dense`](history/mnist_dense.csv) | mnist | dense | 79,510 | 10 | 91.23% | 90.67% (90.00% – 91.00%) "
        "| 0.906 | [97 % validation](https://example.com) |" in text
    )
    assert text.count("(history/") == len(models)
    assert "| cifar10 | train | 1,003 | 2 | 3 | 1,000 |" in text
    assert "`imagenette_vgg16` on the 7 test images that are not in the pretraining data" in text
    assert "**Synthetic data: mnist, vgg16.**" in text
    assert "Synthetic data" not in render(models, datasets, [])


def test_accuracy_without_tta_is_a_column_if_any_model_has_tta(project: Path) -> None:
    first, second, *_ = all_models(params.load())
    assert "Without TTA" not in render([first, second], [], [])
    augmented = replace(second, metrics={**second.metrics, "accuracy_without_tta": 0.8901})
    text = render([first, augmented], [], [])
    assert "| Test accuracy | Without TTA | Macro-F1 |" in text
    assert "| 90.67% (90.00% – 91.00%) |  | 0.906 |" in text
    assert "| 90.67% (90.00% – 91.00%) | 89.01% | 0.906 |" in text


def test_an_outdated_measurement_and_synthetic_data_are_marked_in_the_row(project: Path) -> None:
    runs = measured.MeasuredResult([{"accuracy": 0.97}, {"accuracy": 0.98}], [{}, {}])
    first, second, third, *_ = (replace(model, measured=runs) for model in all_models(params.load()))
    text = render([first, replace(second, outdated=True), replace(third, synthetic=True)], [], [])
    rows = [line for line in text.splitlines() if "](history/" in line]
    assert [row.endswith("| 97.50% ± 0.71 |") for row in rows] == [True, False, True]
    assert rows[1].endswith("| 97.50% ± 0.71 \\* |")
    assert "\\* measured with other params, code or library versions than today’s." in text
    assert [f"| {third.config.dataset} (synthetic) |" in row for row in rows] == [False, False, True]
    assert "measured with other" not in render([first], [], [])


@pytest.mark.parametrize("outdated", [False, True])
def test_an_outdated_measurement_is_marked_in_the_row_of_the_page(project: Path, outdated: bool) -> None:
    runs = measured.MeasuredResult([{"accuracy": 0.97}, {"accuracy": 0.98}], [{}, {}])
    first, second, *_ = (replace(model, measured=runs) for model in all_models(params.load()))
    models = (first, replace(second, outdated=outdated))
    facts = {"compute_dtype": "float32"}
    views = [build.ModelView(replace(each, metrics=each.metrics | facts), [], [], []) for each in models]
    text = page.render("index.html.j2", models=views, datasets=[], audits=[], synthetic=[])
    assert text.count("97.50% ± 0.71") == 2 or text.count("97.50\N{NO-BREAK SPACE}% ± 0.71") == 2
    assert text.count("2 seeds, outdated</span>") == outdated
    assert ("Outdated: measured with other params, code or library versions than today’s." in text) == outdated


def test_the_caution_names_the_synthetic_data(reported: Path) -> None:
    text = (reported / "reports/README.md").read_text(encoding="utf-8")
    assert "**Synthetic data: cifar10, imagenette, vgg16.**" in text
    assert text.count("78–80 % validation") == 1  # beside the only model on real data


def test_skipped_files_are_counted(reported: Path) -> None:
    sentence = "1 files are not valid images"
    assert f"`imagenette`: {sentence}; `data/skipped/imagenette.json`" in (reported / "reports/README.md").read_text(
        encoding="utf-8"
    )
    assert (reported / "reports/index.html").read_text(encoding="utf-8").count(sentence) == 1
