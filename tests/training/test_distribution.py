"""One model on several devices: two of TensorFlow's logical CPUs stand for two GPUs.

They must be set up before TensorFlow is used: the trainings of a test are a process of their own, one after the other.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.conftest import ROOT
from tests.training.small import EVERY_OPTIMIZER

TRAINING = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from stages.runtime.errors import UserError
from stages.training import checkpoint
from stages.training.build import build_model, build_strategy
from stages.training.loop import train_epochs
from stages.training.saving import save
from tests.training.small import arrays, config, history_of, predict

tf.config.experimental.enable_op_determinism()
checkpoint.SECONDS_BETWEEN = 0.0
for name, images, seed, changes in json.loads(sys.argv[1]):
    keras.utils.clear_session()  # Keras numbers the layers of a process
    keras.utils.set_random_seed(seed)
    entry = config(**changes)
    with build_strategy(entry.distribution).scope():
        model = build_model(entry, (8, 8, 1), np.dtype("uint8"), 2)
    try:
        history = history_of(train_epochs(model, entry, arrays(images), arrays(31, seed=5), seed, Path(f"{name}.npz")))
    except UserError as error:
        sys.exit(f"error: {error}")
    save(model, Path(f"{name}.keras"), {})
    history.to_csv(f"{name}.csv", index_label="epoch")
    np.save(f"{name}.npy", predict(Path(f"{name}.keras"), arrays(seed=9)).probabilities)
"""
# Not Adam, which has a kernel for one device that rounds in another way
CNN = {
    "architecture": "cnn",
    "filters": [8],
    "padding": "same",
    "units": [],
    "optimizer": {"name": "sgd"},
    "learning_rate": 0.1,
    "epochs": 4,
}


Training = tuple[str, int, int, dict[str, Any]]


def training(distribution: str | None, images: int, seed: int = 1, name: str = "", **changes: Any) -> Training:
    """A training on one device or on both. Outputs are called `one` or `mirrored`, or as `name` says."""
    return name or distribution or "one", images, seed, {**CNN, "distribution": distribution, **changes}


def train_all(folder: Path, *trainings: Training) -> str:
    """Train in one process, one model after the other, and return the error."""
    command = [sys.executable, "-c", TRAINING, json.dumps(trainings)]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def train(folder: Path, distribution: str | None, images: int, seed: int = 1, **changes: Any) -> str:
    """The same with one training."""
    return train_all(folder, training(distribution, images, seed, **changes))


def test_two_devices_learn_what_one_device_learns(tmp_path: Path) -> None:
    """The last batch is not full."""
    assert train_all(tmp_path, training(None, 70), training("mirrored", 70)) == ""
    one, both = (pd.read_csv(tmp_path / f"{name}.csv", index_col="epoch") for name in ("one", "mirrored"))
    np.testing.assert_allclose(both, one, rtol=1e-5)
    assert one["loss"].iloc[-1] < one["loss"].iloc[0]
    np.testing.assert_allclose(np.load(tmp_path / "mirrored.npy"), np.load(tmp_path / "one.npy"), rtol=1e-4)


def test_two_devices_learn_what_one_device_learns_with_groups_and_averaging(tmp_path: Path) -> None:
    """Every optimizer has other arithmetic for several devices; the slow weights and momenta are mirrored."""
    averaging = {**EVERY_OPTIMIZER["averaging"], "batch_statistics": True}
    changes = {**EVERY_OPTIMIZER, "learning_rate": 0.01, "averaging": averaging, "drop_last": True}
    assert train_all(tmp_path, training(None, 70, **changes), training("mirrored", 70, **changes)) == ""
    one, both = (pd.read_csv(tmp_path / f"{name}.csv", index_col="epoch") for name in ("one", "mirrored"))
    np.testing.assert_allclose(both, one, rtol=1e-3)
    assert one["loss"].iloc[-1] < one["loss"].iloc[0]
    changes |= {"architecture": "bn_cnn", "padding": None}  # whose moving averages have slow weights, too
    assert train(tmp_path, "mirrored", 70, seed=2, **changes) == ""


def test_mirrored_training_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    """A training of fewer epochs stands for an interrupted one."""
    assert train(tmp_path, "mirrored", 70, epochs=2) == ""
    assert train_all(tmp_path, training("mirrored", 70), training("mirrored", 70, name="whole")) == ""
    assert (tmp_path / "mirrored.keras").read_bytes() == (tmp_path / "whole.keras").read_bytes()


OVERFLOW = """
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from stages.data.reader import SplitArrays
from stages.training.build import build_loss, build_optimizer, build_strategy
from stages.training.epoch import make_train_epoch
from stages.training.groups import make_hyperparameter_setter
from stages.training.step import make_train_step
from tests.training.small import config

keras.config.set_dtype_policy("mixed_float16")
entry = config(optimizer={"name": "sgd"})
inputs = np.ones((4, 4), np.float32)
inputs[1::2] = 1000  # examples of the second device: their scaled gradients overflow in float16
data = SplitArrays(np.arange(4), inputs, np.array([0, 0, 1, 1], np.int32))
strategy = build_strategy("mirrored")
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Softmax(dtype="float32")])
    optimizer = build_optimizer(entry, model)
train_step = make_train_step(model, [], build_loss(entry), optimizer)
rates = np.array([[[0.01, np.nan]]], np.float32)
train_epoch = make_train_epoch(strategy, make_hyperparameter_setter(optimizer, rates), data, 2, 4)
before = model.get_weights()
train_epoch(train_step, "", 0, np.arange(4), rates)
assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights())), model.get_weights()
assert float(optimizer.dynamic_scale.value.numpy()) == 2.0**14
"""


def test_mirrored_float16_step_is_skipped_if_a_single_device_overflows(tmp_path: Path) -> None:
    """Keras asks the first device alone: infinite gradients of the second one would reach the weights."""
    command = [sys.executable, "-c", OVERFLOW]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_image_that_would_leave_a_device_without_work_is_left_out_of_the_epoch(tmp_path: Path) -> None:
    """A last batch of one image would give the other device nothing to do."""
    assert train(tmp_path, "mirrored", 65, epochs=1) == ""
    assert pd.read_csv(tmp_path / "mirrored.csv")["accuracy"].iloc[0] * 64 % 1 == 0


def test_batch_that_devices_cannot_share_is_one_line(tmp_path: Path) -> None:
    error = train(tmp_path, "mirrored", 70, batch_size=5)
    assert "error: params.yaml: batch_size 5 is not a multiple of the 2 devices that share it" in error
