"""Transfer learning by the number of images: a linear head, as `make dataset` writes it, on subsets of features.

Takes each entry of `features` with real images and weights whose records are there: `make dataset NAME=flowers
BACKBONE=vgg16`, `dvc repro extract@flowers_vgg16`. The means of feature maps are taken, with or without `pooling: avg`.
The table is a remark of the result: nothing takes turns.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.common import Result, inside, log, quiet
from stages.config import params
from stages.config.models import ModelConfig
from stages.config.schema import Params
from stages.data.examples import Example
from stages.evaluate import read_history
from stages.reporting.markdown import table
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow
from stages.training.train_model import Training, run
from tools.lib.recipe import on_features

SIZES = (10, 50, 200, None)  # training images of a class; None: all
VALIDATION = 30  # images of a class, apart from these
SEEDS = 3  # of the choice of images, and of the training


def measure(quick: bool) -> Result:
    """All sizes and seeds; with `quick` the smallest, once."""
    values = params.load()
    names = [
        name
        for name, entry in values.features.items()
        if not (values.is_synthetic(values.datasets[entry.dataset]) or values.is_backbone_synthetic(entry.backbone))
        and paths.records(name).exists()
    ]
    if not names:
        raise UserError(
            "params.yaml: features: no records of real images; run `make dataset`, `dvc repro extract@NAME`"
        )
    import_tensorflow(values.threads, gpu=False)
    columns = [_accuracies(values, name, quick) for name in names]
    sizes, seeds = (SIZES[:1], 1) if quick else (SIZES, SEEDS)
    cells = [[str(size or "all"), *found] for size, *found in zip(sizes, *columns, strict=True)]
    text = (
        f"Accuracy of a linear head in percent on {VALIDATION} validation images of a class / the test split, mean ± "
        f"standard deviation of {seeds} seeds."
    )
    return Result([], [], [text, table(["Images of a class", *names], cells, ["r"] * (1 + len(names)))])


def _accuracies(values: Params, name: str, quick: bool) -> list[str]:
    """Train and test heads on one feature set; return a cell for each size."""
    from stages.data import reader

    classes = reader.info(name).features["label"].names
    splits = {split: reader.load(name, split) for split in ("train", "test")}
    inputs = {split: each.inputs.reshape(len(each), -1, each.inputs.shape[-1]) for split, each in splits.items()}
    means = {split: array.mean(axis=1, dtype=np.float32).astype(np.float16) for split, array in inputs.items()}
    backbone = json.dumps({**(reader.backbone(name) or {}), "pooling": "avg"})
    entry = on_features("", values.features[name].backbone, 3).model | {"dataset": "features"}
    cells = []
    for size in SIZES[:1] if quick else SIZES:
        found = []
        for seed in range(1 if quick else SEEDS):
            chosen = _split(splits["train"].labels, size, seed) | {"test": np.arange(len(splits["test"]))}
            examples: list[Example] = []
            for split, rows in chosen.items():
                source = "test" if split == "test" else "train"
                labels = splits[source].labels[rows]
                examples += [
                    (split, str(row), means[source][row], int(label)) for row, label in zip(rows, labels, strict=True)
                ]
            found.append(_train(values, entry, seed, classes, examples, backbone))
            log(f"{name}, {size or 'all'} images of a class, seed {seed}: {found[-1]}")
        cells.append(" / ".join(map(percent, zip(*found, strict=True))))
    return cells


def percent(accuracies: Sequence[float]) -> str:
    """Mean and, of several seeds, sample standard deviation in percent."""
    spread = f" ± {100 * stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{100 * mean(accuracies):.1f}{spread}"


def _split(labels: np.ndarray, size: int | None, seed: int) -> dict[str, np.ndarray]:
    """Choose rows of each class: `VALIDATION` to validate, and of the rest `size` or all to train."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rows = [order[labels[order] == label] for label in np.unique(labels)]
    train = [each[VALIDATION:][:size] for each in rows]
    return {"train": np.concatenate(train), "validation": np.concatenate([each[:VALIDATION] for each in rows])}


def _train(
    values: Params, entry: dict[str, Any], seed: int, classes: list[str], examples: list[Example], backbone: str
) -> tuple[float, float]:
    """Train a head on records of its own; return its accuracy on the validation and on the test split."""
    import keras

    from stages.data import writer
    from stages.evaluation import predictions

    keras.utils.clear_session()
    with tempfile.TemporaryDirectory() as folder, inside(Path(folder)), quiet():
        writer.write("features", classes, ["train", "validation", "test"], examples)
        paths.backbone("features").write_text(backbone, encoding="utf-8")
        model = ModelConfig.model_validate(entry)
        head = Training("head", model, seed, 0.1, values.threads, "native", synthetic=False, pretrained=None)
        for _ in run(head, values.memory):
            pass
        validated = read_history("head", model)[1]
        return validated or 0.0, float(predictions.read("head").correct.mean())
