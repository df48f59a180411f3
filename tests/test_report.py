"""The table says what the metrics say; table, page and pictures are the same bytes in every process."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages import params, report, results
from stages.console import UserError
from tests.conftest import MODELS, ROOT

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


def found(values: params.Params) -> list[results.Model]:
    """Every model of params.yaml with the metrics above."""
    claim = results.Claim(figure="97 %", split="validation", source="https://example.com")
    empty: dict[str, Any] = dict.fromkeys(["history", "confusion", "classes", "reliability", "mistakes", "md5"])
    return [
        results.Model(
            name=name,
            recipe=recipe,
            images_of=recipe.dataset,
            metrics={**METRICS, **({"unseen_images": 7, "unseen_accuracy": 0.5} if recipe.unseen_prefix else {})},
            published=claim if name == "mnist_dense" else None,
            **empty,
        )
        for name, recipe in values.recipes.items()
    ]


def test_a_row_for_each_model_and_dataset(project: Path) -> None:
    datasets = [results.Dataset("cifar10", {"train": {"a": 3, "b": 1000}}, drawn=False)]
    text = report.readme(found(params.load()), datasets, ["mnist", "vgg16"])
    assert (
        "| [`mnist_dense`](history/mnist_dense.csv) | mnist | dense | 79,510 | 10 | 91.23% | 90.67% (90.00% – 91.00%) "
        in text
    )
    assert "| [97 % validation](https://example.com) |" in text
    assert text.count("(history/") == 13
    assert "| cifar10 | train | 1,003 | 2 | 3 | 1,000 |" in text
    assert "on the 7 test images whose names are not of" in text
    assert "**Drawn samples: mnist, vgg16.**" in text
    assert "Drawn samples" not in report.readme(found(params.load()), datasets, [])


def test_the_caution_names_what_is_drawn(reported: Path) -> None:
    assert "**Drawn samples: mnist, cifar10, imagenette, vgg16.**" in (reported / "reports/README.md").read_text()


def test_files_that_were_no_images_are_told(reported: Path) -> None:
    told = "1 files are no images"
    assert f"`imagenette`: {told}; `data/skipped/imagenette.json`" in (reported / "reports/README.md").read_text()
    assert (reported / "reports/index.html").read_text().count(told) == 1


def test_a_missing_metric_is_one_line_before_any_work(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(measured)
    path = Path("reports/metrics/mnist_dense.json")
    text = path.read_text()
    path.unlink()
    try:
        with pytest.raises(
            UserError, match=r"reports/metrics/mnist_dense.json: missing; run `dvc repro evaluate@mnist_dense`"
        ):
            report.report()
    finally:
        path.write_text(text)


def test_pictures_of_every_dataset_and_model(reported: Path) -> None:
    pictures = reported / "reports/pictures"
    files = {str(path.relative_to(pictures)) for path in pictures.rglob("*") if path.is_file()}
    datasets = ("mnist", "cifar10", "imagenette")
    assert files == {
        *(f"samples/{name}.jpg" for name in datasets),
        *(f"distribution/{name}.png" for name in datasets),
        *(f"confusion/{name}.png" for name in MODELS),
        *(f"mistakes/{name}.jpg" for name in MODELS),
        "augmented/cifar10_small_cnn_augmented.jpg",  # the only one that augments
    }
    for file in files:
        with Image.open(pictures / file) as picture:
            assert min(picture.size) > 200, file


def test_the_same_bytes_in_another_process(reported: Path, tmp_path: Path) -> None:
    """With another seed of Python's hashes, and another configuration of Matplotlib."""
    shutil.copytree(reported, tmp_path / "copy", ignore=shutil.ignore_patterns("README.md", "index.html", "pictures"))
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.fonttype: path\nsavefig.bbox: tight\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "1",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "stages.report"], cwd=tmp_path / "copy", env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert hashes(tmp_path / "copy/reports") == hashes(reported / "reports")


def hashes(folder: Path) -> dict[str, str]:
    """Of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}
