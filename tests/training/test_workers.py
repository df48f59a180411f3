"""One model in several workers: processes with TensorFlow's collective operations between them."""

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.cluster.gang import run_gang
from stages.config import params
from stages.config.models import ModelConfig, WorkersConfig
from stages.training import run
from tests.conftest import write_params
from tests.test_train import write_records
from tests.training.small import EVERY_OPTIMIZER, arrays, config, history_of

IMAGES = 68  # with batches of 16, each of up to four workers has a share of the last one, too
GROUPED: dict[str, Any] = {
    **EVERY_OPTIMIZER,
    "architecture": "cnn",
    "filters": [8],
    "padding": "same",
    "augment": {
        "random_crop": {"padding": 2, "mode": "reflect"},
        "alternating_flip": {},
        "random_erasing": {"size": 2, "max_squares": 2},
    },
    "class_weight": "balanced",
}
PLAIN = {"architecture": "cnn", "filters": [8], "padding": "same", "units": [], "optimizer": {"name": "adam"}}
NORMALIZED = {
    "architecture": "bn_cnn",
    "filters": [4],
    "units": [8],
    "augment": {"rotation": {"factor": 0.1}, "mixup": {"alpha": 0.4}, "cutmix": {"alpha": 1.0}},
    "patience": 1,
    "restore_best": True,
}
ENTRIES = [(config(**GROUPED), "float32"), (config(**PLAIN), "mixed_float16"), (config(**NORMALIZED), "float32")]


def train(entry: ModelConfig, policy: str, strategy: Any) -> tuple[Any, pd.DataFrame]:
    """The model and the history of a training."""
    import keras

    from stages.training.build import build_model
    from stages.training.loop import train_epochs

    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy)
    try:
        with strategy.scope():
            model = build_model(entry, (8, 8, 1), np.dtype("uint8"), 2)
        return model, history_of(train_epochs(model, entry, arrays(IMAGES), arrays(31, seed=5), 1))
    finally:
        keras.config.set_dtype_policy("float32")


def train_as_worker(workers: int, folder: Path) -> Iterator[pd.DataFrame]:
    """Yield the history of each training, and write a hash of this worker's weights to a file."""
    from stages.runtime import numerics

    numerics.import_tensorflow(1)
    import tensorflow as tf

    from stages.training.build import build_strategy

    strategy = build_strategy(WorkersConfig(workers=workers))
    tf.config.experimental.enable_op_determinism()
    for number, (entry, policy) in enumerate(ENTRIES):
        model, history = train(entry, policy, strategy)
        weights = b"".join(weight.tobytes() for weight in model.get_weights())
        name = f"{number}-{strategy.cluster_resolver.task_id}"
        (folder / name).write_text(hashlib.sha256(weights).hexdigest())
        while len(list(folder.glob(f"{number}-*"))) < workers:  # the gang ends with its chief
            time.sleep(0.01)
        yield history


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_learn_what_one_device_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Except with batch normalization or with mixed images, whose neighbors are those of the worker's share."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not between workers
    histories = list(run_gang(train_as_worker, (workers, tmp_path), workers))
    for number, history in enumerate(histories):
        assert len({(tmp_path / f"{number}-{worker}").read_text() for worker in range(workers)}) == 1
        assert np.isfinite(history).all(axis=None)
    import tensorflow as tf

    for (entry, policy), history, tolerance in zip(ENTRIES, histories, (1e-4, 1e-2), strict=False):
        np.testing.assert_allclose(history, train(entry, policy, tf.distribute.get_strategy())[1], rtol=tolerance)


def train_and_kill(arguments: tuple[Any, ...], killed: Path | None) -> Iterator[Any]:
    """`run.run` with a checkpoint after each epoch; the second worker kills itself once, after five of them."""
    from stages.training import checkpoint

    checkpoint.SECONDS_BETWEEN = 0.0
    for item in run.run(*arguments):
        yield item
        number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        if killed and not killed.exists() and number == 1 and item[0] == 5:
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_training_that_loses_a_worker_ends_with_the_bytes_of_an_undisturbed_one(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It also streams its data: each worker reads its own share of every batch."""
    write_params(project, lambda values: values["train"].update(epochs=12, distribution={"workers": 2}))
    write_records()
    values = params.load()
    model = values.resolved_models["mnist_cnn"]
    arguments = "mnist_cnn", model, values.seed, values.train.validation_fraction, values.threads
    outcomes = []
    for memory, killed in ((values.memory, None), (0.0, project / "killed")):
        info, *epochs = run_gang(train_and_kill, ((*arguments, memory), killed), model.workers)
        outcomes.append((epochs, [path.read_bytes() for path in run.outputs("mnist_cnn")]))
        for path in [*run.outputs("mnist_cnn"), info.checkpoint]:
            path.unlink()
    assert [number for number, _ in outcomes[0][0]] == list(range(1, 13))
    assert outcomes[1] == outcomes[0]
    printed, errors = capfd.readouterr()
    assert "worker 2 of 2 was killed; all workers start again from the last checkpoint\n" in printed
    assert re.findall(r"resuming from epoch (\d+), which", printed)[0] in ("4", "5")
    assert printed.count("streaming") > 0
    assert "Traceback" not in errors
