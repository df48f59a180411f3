"""The report of 200 models, and of a dataset of 21,000 classes."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import report
from stages.config import params
from stages.data import writer
from stages.reporting import build, page, results
from stages.runtime import paths
from stages.runtime.numerics import import_tensorflow
from tests.conftest import only, write_params
from tests.reporting.project import make_predictions, write_evaluation, write_model


def write_models(folder: Path, models: int, classes: int, images: int) -> None:
    """Write a project with this many equally evaluated models of one dataset to `folder`, the working directory."""
    names = [f"class {label}" for label in range(classes)]

    def change(values: Any) -> None:
        only(values, "cifar10_small_cnn_augmented")
        (model,) = values["models"].values()
        values["models"] = {f"model_{number}": model for number in range(models)}
        values["datasets"]["cifar10"]["classes"] = names

    write_params(folder, change)
    import_tensorflow(params.load().threads)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 32, 32, 3)).astype(np.uint8)
    labels = random.integers(0, classes, images)
    counts = {split: dict.fromkeys(names, 1) for split in ("train", "test")}
    examples = [(split, str(at), pixels[at], int(label)) for split in counts for at, label in enumerate(labels)]
    writer.write("cifar10", names, ["train", "test"], examples)
    for path, content in (
        (paths.counts("cifar10"), counts),
        (paths.skipped("cifar10"), {"train": {}, "test": {}}),
        (paths.PUBLISHED, {}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    keys = [str(number) for number in range(images)]
    write_evaluation("model_0", make_predictions(labels, random.random((images, classes), np.float32), names, keys))
    (config, *_) = params.load().models.values()
    write_model("model_0", config, (32, 32, 3), names)
    for first in [path for path in folder.rglob("model_0.*") if path.is_file()]:
        for number in range(1, models):
            first.with_stem(f"model_{number}").hardlink_to(first)


def test_page_of_200_models_is_read_and_rendered_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the figures of one of them: to draw those of all takes minutes."""
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path, 200, 10, 50)
    config = params.load()
    models = results.models(config)
    assert [model.name for model in models] == sorted(f"model_{number}" for number in range(200))
    (view,) = build.model_views(models[:1], 0)
    views = [view._replace(model=model) for model in models]
    text = page.render("index.html.j2", models=views, datasets=[], audits=[], synthetic=[])
    assert text.count('<details id="model-model_') == text.count('href="#model-model_') == 200
    assert len(text) < 200 * 250_000
    readme = page.render("README.md.j2", models=models, datasets=results.datasets(config), synthetic=[])
    assert readme.count("](history/model_") == 200


@pytest.mark.slow
@pytest.mark.parametrize(("models", "classes", "images"), [(200, 10, 500), (1, 1000, 2000), (1, 21_000, 2000)])
def test_report_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: int, classes: int, images: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path, models, classes, images)
    started = time.monotonic()
    report.report()
    size = paths.PAGE.stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GB on Linux
    print(f"{models} models, {classes} classes: {time.monotonic() - started:.0f} s, {memory:.1f} GB, {size:,} bytes")
    assert size < 1_000_000 + models * 250_000
    assert memory < 4 or sys.platform != "linux"
