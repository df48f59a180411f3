"""One model on several devices: two of TensorFlow's logical processors stand for two GPUs.

They have to be set up before TensorFlow is used, and its collective operations are one set a process: each training is
a process of its own.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tests.conftest import ROOT

TRAINING = """
import sys
from pathlib import Path
import numpy as np
from stages import checkpoint, train
from stages.console import UserError
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from tests.test_train import arrays, history_of, recipe

devices, images, batch_size, epochs, kept = sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])
keras.utils.set_random_seed(1)
tf.config.experimental.enable_op_determinism()
checkpoint.SECONDS_BETWEEN = 0.0
# Not Adam, of which one device has a kernel of its own: it rounds otherwise
network = {"architecture": "cnn", "filters": [8], "padding": "same", "units": [], "optimizer": "sgd"}
entry = recipe(**network, batch_size=batch_size, epochs=epochs, devices=devices, learning_rate=0.1)
with train._strategy(entry.devices).scope():
    model = train.build(entry, (8, 8, 1), np.dtype("uint8"), 2, 1)
try:
    history = history_of(train.epochs(model, entry, arrays(images), arrays(31, seed=5), 1, kept))
except UserError as error:
    sys.exit(f"error: {error}")
train.save(model, Path(f"{devices}.keras"))
history.to_csv(f"{devices}.csv", index_label="epoch")
test = arrays(seed=9)
np.save(f"{devices}.npy", np.stack(train.predict(Path(f"{devices}.keras"), test, ["dark", "bright"])["probabilities"]))
"""


def trained(folder: Path, devices: str, images: int, batch_size: int = 16, epochs: int = 4) -> str:
    """Train on one device or on both; what it says on standard error."""
    arguments = [devices, str(images), str(batch_size), str(epochs), str(folder / f"kept-{devices}.npz")]
    command = [sys.executable, "-c", TRAINING, *arguments]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_two_devices_learn_as_one_does(tmp_path: Path) -> None:
    """Also where the last batch is not full, and after a kill, for which one of fewer epochs stands."""
    assert trained(tmp_path, "one", images=70) == ""
    assert trained(tmp_path, "all", images=70, epochs=2) == ""
    assert trained(tmp_path, "all", images=70) == ""
    one, both = (pd.read_csv(tmp_path / f"{devices}.csv", index_col="epoch") for devices in ("one", "all"))
    np.testing.assert_allclose(both, one, rtol=1e-5)
    assert one["loss"].iloc[-1] < one["loss"].iloc[0]
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), np.load(tmp_path / "one.npy"), rtol=1e-4)


def test_an_image_that_would_weigh_more_than_others_waits_for_another_epoch(tmp_path: Path) -> None:
    """A last batch of one image is none: the other device would have nothing to do."""
    assert trained(tmp_path, "all", images=65, epochs=1) == ""
    assert pd.read_csv(tmp_path / "all.csv")["accuracy"].iloc[0] * 64 % 1 == 0


def test_a_batch_that_devices_cannot_share_is_one_line(tmp_path: Path) -> None:
    said = trained(tmp_path, "all", images=70, batch_size=5)
    assert "error: params.yaml: batch_size 5 is no multiple of this machine's 2 devices" in said
