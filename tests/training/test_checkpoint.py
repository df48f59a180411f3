"""Checkpoints: what a training needs to resume after it was killed, and when they are removed."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.prediction.saved_model import save
from stages.runtime import paths
from stages.runtime.identity import data_identity
from stages.training import checkpoint
from stages.training.checkpoint import TrainState, checkpoint_path
from stages.training.loop import train_epochs
from stages.training.network import build_model
from tests.training.small import arrays, config, history_of

RANDOM = {
    "architecture": "dropout_cnn",
    "units": None,
    "augment": [{"name": "horizontal_flip"}, {"name": "rotation", "factor": 0.1}],
    "schedule": {"name": "cosine"},
    "restore_best": True,
    "epochs": 4,
}
GROUPED = {
    "architecture": "cnn",
    "filters": [4],
    "padding": "same",
    "units": [],
    "optimizer": {"name": "adamw", "weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-7},
    "schedule": {"name": "one_cycle", "warmup": 0.3, "start": 0.1, "end": 0.0, "momentum": [0.9, 0.5]},
    "groups": {
        "convolution": {
            "variables": "conv2d/kernel",
            "optimizer": {"name": "muon", "momentum": 0.6, "nesterov": True, "iterations": 3},
            "schedule": {"name": "triangular"},
        },
        "bias": {"variables": "conv2d/bias", "optimizer": {"name": "sgd", "momentum": 0.9}},
    },
    "averaging": {"name": "lookahead", "every": 2, "decay": 0.5, "keep_slow": True},
    "drop_last": True,
    "epochs": 4,
}
ENVIRONMENT = {"threads": "2", "compute_dtype": "float32"}


class KilledError(Exception):
    pass


def train_random(changes: dict[str, Any], path: Path, folder: Path, kill_after: int = 99) -> tuple[bytes, pd.DataFrame]:
    """The bytes of a model and the history of its training."""
    import keras

    keras.utils.clear_session()  # Keras numbers the layers of a process
    keras.utils.set_random_seed(3)
    entry, data = config(**changes), arrays(40, side=32, channels=3)
    model = build_model(entry, (32, 32, 3), np.dtype("uint8"), 2)
    rows = {}
    for epoch, row in train_epochs(model, entry, data, data, 3, path):
        rows[epoch] = row
        if epoch == kill_after:
            raise KilledError
    save(model, folder / "model.keras", {})
    return (folder / "model.keras").read_bytes(), history_of(rows.items())


@pytest.mark.parametrize(("changes", "policy"), [(RANDOM, "float32"), (GROUPED, "mixed_float16")])
def test_killed_training_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], policy: str
) -> None:
    """Dropout, augmentation, the order of the images, optimizers, schedule, averaging and the best epoch resume."""
    import keras

    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    keras.config.set_dtype_policy(policy)
    try:
        whole, history = train_random(changes, tmp_path / "whole.npz", tmp_path)
        for kill_after in (1, 2):
            with pytest.raises(KilledError):
                train_random(changes, tmp_path / "killed.npz", tmp_path, kill_after)
        resumed, resumed_history = train_random(changes, tmp_path / "killed.npz", tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    pd.testing.assert_frame_equal(history, resumed_history, check_exact=True)
    assert whole == resumed


def test_corrupt_checkpoint_is_not_used(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, variables, TrainState([{"loss": 0.5}], 0.5))
    assert checkpoint.restore(path, variables) == TrainState([{"loss": 0.5}], 0.5)
    before = model.get_weights()
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(before[0].tobytes()) + 5] ^= 1
    for corrupt in (bytes(flipped), data[: len(data) // 2], b"", b"not an archive"):
        path.write_bytes(corrupt)
        assert checkpoint.restore(path, variables) == TrainState()
    assert checkpoint.restore(tmp_path / "absent.npz", variables) == TrainState()
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_everything_that_determines_a_training_changes_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(**changes: Any) -> Path:
        arguments: dict[str, Any] = {
            "name": "mnist_dense",
            "config": config(),
            "environment": ENVIRONMENT,
            "seed": 1,
            "data": "records",
        }
        return checkpoint_path(**{**arguments, **changes})

    others = [
        path(config=config(learning_rate=0.02)),
        path(config=config(architecture="lenet")),
        path(config=config(augment=[{"name": "horizontal_flip"}])),
        path(environment={**ENVIRONMENT, "threads": "4"}),
        path(environment={**ENVIRONMENT, "compute_dtype": "bfloat16"}),
        path(seed=2),
        path(data="other records"),
    ]
    assert len({path(), *others}) == len(others) + 1
    before = path()
    changed = tmp_path / "step.py"
    changed.write_text("# another step", encoding="utf-8")
    files = checkpoint.code_files
    monkeypatch.setattr(checkpoint, "code_files", lambda config: [*files(config), changed])
    assert path() != before


def test_other_records_or_splits_have_another_identity_whether_dvc_knows_them_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shard = paths.records("mnist") / "mnist-train.tfrecord-00000-of-00001"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"one")
    splits = ["train[:-5]", "train[-5:]"]
    time = shard.stat().st_mtime_ns

    def identity(lock: str | None, content: bytes = b"one", splits: list[str] = splits) -> str:
        paths.LOCK.unlink(missing_ok=True)
        if lock:
            out = {"path": "data/records/mnist", "md5": lock}
            paths.LOCK.write_text(json.dumps({"stages": {"preprocess@mnist": {"outs": [out]}}}), encoding="utf-8")
            os.utime(paths.LOCK, (0, 0))  # nobody is writing it
        if shard.read_bytes() != content:
            shard.write_bytes(content)
            if content == b"two":
                os.utime(shard, ns=(time, time))
        return data_identity("mnist", splits)

    found = [
        identity("0a.dir"),
        identity("0b.dir"),  # DVC wrote other records
        identity("0a.dir", splits=["train[:-6]", "train[-6:]"]),
        identity("0a.dir", b"six"),  # written without DVC
        identity(None, b"six"),
        identity(None, b"two"),
        identity(None),
    ]
    assert len(set(found)) == len(found)
    assert identity(None) == found[-1]


def test_code_files_are_the_trainer_and_the_architecture() -> None:
    names = {f"{file.parent.name}/{file.name}" for file in checkpoint.code_files(config(architecture="lenet"))}
    assert {"training/trainer.py", "optimizers/adam.py", "kernels/adam.py", "models/lenet.py"} <= names
    assert "models/cnn.py" not in names


def test_of_other_params_the_newest_checkpoint_is_kept_and_of_other_models_all(tmp_path: Path) -> None:
    own = tmp_path / "cifar10_cnn-0123456789abcdef.npz"
    kept = [
        own,
        tmp_path / "cifar10_cnn_augmented-0123456789abcdef.npz",
        tmp_path / "big_cifar10_cnn-0123456789abcdef.npz",
        tmp_path / "cifar10_cnn-1111111111111111.npz",  # of a long training, maybe
    ]
    removed = [tmp_path / "cifar10_cnn-fedcba9876543210.npz", tmp_path / ".cifar10_cnn-fedcba9876543210.npz.part"]
    for file in (*kept, *removed):
        file.touch()
    os.utime(removed[0], (1, 1))
    checkpoint.remove_others(own, "cifar10_cnn")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    checkpoint.remove_others(tmp_path / "absent" / own.name, "cifar10_cnn")
