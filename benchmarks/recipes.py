"""Strong recipes against the same recipes in PyTorch, in bfloat16 on the same cores or GPU: speed, and accuracy.

The speed is that of an epoch in the middle of a training, with its validation, as in the benchmark `training`. With
`source: real`, PyTorch also trains to the end on the images in data/records, and its predictions for the test
split are compared with those of the pipeline in data/predictions, which `make repro` writes.
"""

from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import pytorch, pytorch_recipes, training
from benchmarks.common import Result, Round, Row, Table, Target, contender, interleaved, log, rates, real_params
from stages.config import params
from stages.config.models import ModelConfig
from stages.runtime import numerics
from stages.runtime.errors import UserError

PYTORCH = {"PyTorch": False, "torch.compile": True}


def measure(quick: bool) -> Result:
    """All recipes; with `quick` for a short time, and without the accuracies."""
    if not pytorch.available():
        raise UserError(f"PyTorch: {pytorch.MISSING}")
    numerics.import_tensorflow(gpu=False)  # this process reads the images; the GPU's memory is for the contenders
    real, values = real_params(), params.load()
    speed = Table("Strong recipes and PyTorch, bfloat16", "images/s", [])
    accuracy = Table("Accuracy on the test split, one seed each", "%", [])
    for name in pytorch_recipes.NORMALIZATION:
        speed.rows.append(_speed(name, real.resolved_models[name], rounds=2 if quick else 5))
        if values.source == "real" and not quick:
            accuracy.rows.append(_accuracy(name, real.resolved_models[name], values.train.validation_fraction))
    targets = [
        Target(f"`{row.name}` against {other}", "≥ 1.3", row.ratio("pipeline") / row.ratio(other))
        for row in speed.rows
        for other in PYTORCH
    ]
    return Result([speed, accuracy] if accuracy.rows else [speed], targets)


def _speed(name: str, config: ModelConfig, rounds: int) -> Row:
    """Time epochs of five steps, with a GPU of 22; the first one builds, traces and warms up."""
    images = (22 if numerics.NVIDIA.exists() else 5) * config.batch_size
    data = [(split.inputs, split.labels) for split in training.data(config, images)]
    with ExitStack() as stack:
        contenders = {
            other: stack.enter_context(contender(pytorch_recipes.train, name, *data, 100, config.batch_size, compiled))
            for other, compiled in PYTORCH.items()
        }
        contenders["pipeline"] = stack.enter_context(contender(training.pipeline, [name], rounds, 0.0, images))
        interleaved(contenders, 1)
        row = Row(name, rates(interleaved(contenders, rounds), "images"))
    log(f"{name}: " + ", ".join(f"{one} {rate:,.0f}" for one, rate in row.medians.items()) + " images/s")
    return row


def _accuracy(name: str, config: ModelConfig, validation_fraction: float) -> Row:
    """Train in PyTorch to the end, and test the difference between its predictions and the pipeline's."""
    from scipy.stats import binomtest

    from stages.data import reader
    from stages.evaluation import predictions

    size = reader.info(config.dataset).splits["train"].num_examples
    split = reader.load(config.dataset, f"train[:-{round(size * validation_fraction)}]", config.image_size)
    test = reader.load(config.dataset, "test", config.image_size)
    data = (split.inputs, split.labels), (test.inputs, test.labels)
    work = contender(pytorch_recipes.train, name, *data, config.epochs, config.batch_size, False)
    with work as run_round:
        found: list[Round] = [run_round() for _ in range(config.epochs)]
    ours = predictions.read(name)
    position = {key: number for number, key in enumerate(ours.keys)}
    correct = ours.correct[[position[key] for key in test.keys]]
    theirs = np.asarray(found[-1].value["predicted"]) == test.labels
    lost, gained = int((theirs & ~correct).sum()), int((correct & ~theirs).sum())
    notes: dict[str, Any] = {
        "only PyTorch correct": lost,
        "only pipeline correct": gained,
        "p (McNemar, exact)": binomtest(gained, lost + gained).pvalue if lost + gained else 1.0,
        "minutes in PyTorch": sum(one.seconds for one in found) / 60,
    }
    log(f"{name}: PyTorch {theirs.mean():.2%}, pipeline {correct.mean():.2%}, {notes}")
    return Row(name, {"PyTorch": [100 * theirs.mean()], "pipeline": [100 * correct.mean()]}, notes)
