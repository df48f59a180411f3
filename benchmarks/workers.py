"""One model in several processes: one process with all threads, and workers that share them, on this machine.

The timed unit is an epoch after the first one, with its validation, in the middle of a training.
"""

import time
from collections.abc import Iterator

from benchmarks.common import Result, Row, Table, log, quiet
from benchmarks.training import data, input_shape_and_classes
from stages.cluster.gang import run_gang
from stages.config import params
from stages.config.models import WorkersConfig
from stages.runtime.numerics import dtype_policy, import_tensorflow, resolve_compute_dtype

MODELS = ["fashion_mnist_lenet", "cifar10_small_cnn", "cifar10_airbench94"]
IMAGES = {"fashion_mnist_lenet": 16_000, "cifar10_small_cnn": 16_000, "cifar10_airbench94": 4_096}
CONTENDERS = {"1 process × 2 threads": (1, 2), "2 workers × 1 thread": (2, 1), "1 process × 1 thread": (1, 1)}


def measure(quick: bool) -> Result:
    """Three convolutional models in three rounds; with `quick` two of them in one round."""
    models, rounds, epochs = (MODELS[:2], 1, 3) if quick else (MODELS, 3, 4)
    table = Table("Training in workers that share two cores", "images/s", [])
    for model in models:
        row = Row(model, {name: [] for name in CONTENDERS})
        for _ in range(rounds):
            for name, (workers, threads) in CONTENDERS.items():
                seconds = list(run_gang(epoch_seconds, (model, workers, threads, epochs), workers))
                row.values[name].append(IMAGES[model] / min(seconds[1:]))
        table.rows.append(row)
        log(f"{model}: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in row.medians.items()) + " images/s")
    return Result([table], [])


def epoch_seconds(name: str, workers: int, threads: int, epochs: int) -> Iterator[float]:
    """Train as one of the workers, and yield how long each epoch takes."""
    import_tensorflow(threads)
    import keras
    import tensorflow as tf

    from stages.training.build import build_model, build_strategy
    from stages.training.loop import train_epochs

    values = params.load()
    config = values.resolved_models[name].model_copy(update={"epochs": epochs, "patience": None})
    strategy = build_strategy(WorkersConfig(workers=workers) if workers > 1 else None)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(values.seed)
    keras.config.set_dtype_policy(dtype_policy(resolve_compute_dtype(config.compute_dtype)))
    shape, classes = input_shape_and_classes(config)
    train, validation = data(config, IMAGES[name])
    with strategy.scope():
        model = build_model(config, shape, train.inputs.dtype, classes)
    start = time.perf_counter()
    with quiet():
        for _ in train_epochs(model, config, train, validation, values.seed):
            yield time.perf_counter() - start
            start = time.perf_counter()
