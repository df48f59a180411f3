"""One model on several devices: two of TensorFlow's logical CPUs stand for two GPUs.

They must be set up before TensorFlow is used, so the trainings are not in the process of the tests. TensorFlow cannot
distribute two different graphs one after the other, so there are three processes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.training.small import EVERY_OPTIMIZER, MIXING, PLACES, arrays

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
from stages.training.network import build_model, build_strategy
from stages.training.loop import train_epochs
from stages.prediction.saved_model import save
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
        Path(f"{name}.txt").write_text(str(error))
        continue
    save(model, Path(f"{name}.keras"), {})
    history.to_csv(f"{name}.csv", index_label="epoch")
    np.save(f"{name}.npy", predict(Path(f"{name}.keras"), arrays(31, seed=5)).probabilities)
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
SLOW = {**EVERY_OPTIMIZER["averaging"], "batch_statistics": True}
GROUPS = {**EVERY_OPTIMIZER, "learning_rate": 0.01, "averaging": SLOW, "augment": PLACES}
# Of 16 steps, the last one is after the last update of the slow weights, which makes the devices' averages equal
ENDS_FAST = SLOW | {"every": 3, "keep_slow": False}
MIXED = GROUPS | {"architecture": "bn_cnn", "padding": None, "augment": MIXING, "averaging": ENDS_FAST}
MIRRORED = {"distribution": "mirrored"}
# For each process, the trainings: name, number of images, seed, and what is not as in CNN. Of 70 images the last batch
# is not full.
PROCESSES: list[list[tuple[str, int, int, dict[str, Any]]]] = [
    [
        ("one", 70, 1, {}),
        ("both", 70, 1, MIRRORED),
        ("resumed", 70, 1, MIRRORED | {"epochs": 2}),  # a training of fewer epochs stands for an interrupted one
        ("resumed", 70, 1, MIRRORED),
        ("odd", 70, 1, MIRRORED | {"batch_size": 5}),
    ],
    [
        ("one_with_groups", 70, 1, GROUPS | {"drop_last": True}),
        ("both_with_groups", 70, 1, GROUPS | {"drop_last": True} | MIRRORED),
    ],
    [("both_mixed", 65, 2, MIXED | MIRRORED)],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, the history and the predictions of every training, or its error."""
    made = tmp_path_factory.mktemp("trainings")
    for process in PROCESSES:
        trainings = [(name, images, seed, CNN | changes) for name, images, seed, changes in process]
        command = [sys.executable, "-c", TRAINING, json.dumps(trainings)]
        done = subprocess.run(command, cwd=made, env={"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        with (made / "said.txt").open("a", encoding="utf-8") as file:
            file.write(done.stdout)
    return made


def history(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", index_col="epoch")


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [
        ("", 1e-5),
        ("_with_groups", 1e-3),  # every optimizer has other arithmetic; the slow weights and momenta are mirrored
    ],
)
def test_two_devices_learn_what_one_device_learns(folder: Path, suffix: str, tolerance: float) -> None:
    one, both = (history(folder, f"{devices}{suffix}") for devices in ("one", "both"))
    np.testing.assert_allclose(both, one, rtol=tolerance)
    assert one["loss"].iloc[-1] < one["loss"].iloc[0]


def test_model_of_two_devices_predicts_as_that_of_one(folder: Path) -> None:
    np.testing.assert_allclose(np.load(folder / "both.npy"), np.load(folder / "one.npy"), rtol=1e-4)


def test_every_device_validates_the_model_that_is_saved(folder: Path) -> None:
    """Each has trained with moving averages of its own, those of its share of the images."""
    last, data = history(folder, "both_mixed").iloc[-1], arrays(31, seed=5)
    of_labels = np.load(folder / "both_mixed.npy")[np.arange(31), data.labels]
    np.testing.assert_allclose(last["val_loss"], -np.log(of_labels).mean(), rtol=1e-5)
    assert np.isfinite(last).all()


def test_mirrored_training_resumes_from_its_checkpoint(folder: Path) -> None:
    said = (folder / "said.txt").read_text(encoding="utf-8")
    assert said.count("resuming from epoch 2, which an earlier run finished\n") == 1
    assert len(history(folder, "resumed")) == 4
    assert (folder / "resumed.keras").read_bytes() == (folder / "both.keras").read_bytes()


def test_image_that_would_leave_a_device_without_work_is_left_out_of_the_epoch(folder: Path) -> None:
    """A last batch of one image would give the other device nothing to do."""
    assert (history(folder, "both_mixed")["accuracy"] * 64 % 1 == 0).all()


def test_batch_that_devices_cannot_share_is_one_line(folder: Path) -> None:
    error = "params.yaml: batch_size 5 is not a multiple of the 2 devices that share it"
    assert error in (folder / "odd.txt").read_text(encoding="utf-8")


OVERFLOW = """
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from stages.data.reader import SplitArrays
from stages.training.network import build_strategy
from stages.training.trainer import Trainer
from tests.training.small import config

keras.config.set_dtype_policy("mixed_float16")
entry = config(optimizer={"name": "sgd"}, batch_size=4, epochs=1)
inputs = np.ones((4, 4), np.float32)
inputs[1::2] = 1000  # examples of the second device: their scaled gradients overflow in float16
data = SplitArrays(np.arange(4), inputs, np.array([0, 0, 1, 1], np.int32))
strategy = build_strategy("mirrored")
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Softmax(dtype="float32")])
trainer = Trainer(model, entry, data, seed=1)
before = model.get_weights()
trainer.train_epoch(0, np.arange(4), "")
assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights())), model.get_weights()
assert float(trainer.optimizer.dynamic_scale.value.numpy()) == 2.0**14
"""


def test_mirrored_float16_step_is_skipped_if_a_single_device_overflows(tmp_path: Path) -> None:
    """Keras asks the first device alone: infinite gradients of the second one would reach the weights."""
    command = [sys.executable, "-c", OVERFLOW]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
