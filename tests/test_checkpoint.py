"""What a training needs to go on after a kill, on a model small enough to train in seconds."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from stages import checkpoint, params, preprocess, sample, train
from tests.conftest import ROOT, write_params
from tests.test_train import arrays, history_of, recipe

AUGMENTED = {"augment": params.Augment(horizontal_flip=True, rotation=0.1), "restore_best": True, "epochs": 4}


class KilledError(Exception):
    pass


def trained(path: Path, folder: Path, kill_after: int = 99, **changes: Any) -> tuple[bytes, pd.DataFrame]:
    """A training of a network with dropout and augmentation: the bytes of its file and its history."""
    import keras

    keras.utils.clear_session()  # names of layers are numbered through a process
    keras.utils.set_random_seed(3)
    entry = recipe(architecture="dropout_cnn", **{**AUGMENTED, **changes})
    entry = params.Model(**{key: value for key, value in entry.model_dump().items() if key != "units"})
    model = train.build(entry, (32, 32, 3), np.dtype("uint8"), 2, 3)
    data = arrays(40)
    data.inputs.resize((40, 32, 32, 3), refcheck=False)
    rows = {}
    for epoch, row in train.epochs(model, entry, data, data, 3, path):
        rows[epoch] = row
        if epoch == kill_after:
            raise KilledError
    train.save(model, folder / "model.keras")
    return (folder / "model.keras").read_bytes(), history_of(rows.items())


def test_a_training_that_is_killed_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, augmentation, the order of the images, Adam's moments and the best epoch are all carried over."""
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    whole, history = trained(tmp_path / "whole.npz", tmp_path)
    for kill_after in (1, 2):
        with pytest.raises(KilledError):
            trained(tmp_path / "killed.npz", tmp_path, kill_after)
    resumed, continued = trained(tmp_path / "killed.npz", tmp_path)
    pd.testing.assert_frame_equal(history, continued, check_exact=True)
    assert whole == resumed


def begun(folder: Path, epochs: int) -> "tuple[subprocess.Popen[str], list[str]]":
    """A training in a process of its own, with a checkpoint after each epoch; and what it said until so many."""
    code = (
        "from stages import checkpoint, console, train; checkpoint.SECONDS_BETWEEN = 0.0; "
        "console.run(train.train, 'model')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "mnist_dense"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [""]
    for line in process.stdout:
        said.append(line)
        if line.startswith(f"epoch {epochs}/"):
            break
    return process, said


def went_on_after(said: list[str]) -> int:
    """The epoch that an earlier process had finished."""
    found = re.search(r"goes on after epoch (\d+), which an earlier run finished", "".join(said))
    assert found, said
    return int(found[1])


@pytest.mark.usefixtures("ctrl_c")
def test_a_process_that_is_killed_and_interrupted_ends_with_the_same_bytes(project: Path) -> None:
    """SIGKILL, then Ctrl-C, then the rest. Nothing listens meanwhile: neither the trainer nor its MLflow."""
    import keras

    write_params(project, lambda values: values["train"].update(epochs=60))
    sample.draw("mnist", params.load().datasets["mnist"], Path("data/raw/mnist"))
    preprocess.preprocess("mnist")
    keras.utils.clear_session()  # names of layers are numbered through a process
    train.train("mnist_dense")
    files = train._outputs("mnist_dense")
    whole = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()

    process, _ = begun(project, 10)
    with process:
        listening = [one for one in psutil.Process(process.pid).net_connections("inet") if one.status == "LISTEN"]
        process.kill()
    assert not listening
    (kept,) = Path(".dvc/tmp/checkpoints").iterdir()
    process, said = begun(project, 30)
    with process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert 10 <= went_on_after(said) < 60
    assert (process.returncode, errors) == (1, "interrupted: `dvc repro` goes on from the last finished stage\n")
    assert kept.exists() and not any(path.exists() for path in files)
    process, said = begun(project, 60)
    with process:
        _, errors = process.communicate(timeout=60)
    assert 30 <= went_on_after(said) < 60
    assert (process.returncode, errors) == (0, "")
    assert [path.read_bytes() for path in files] == whole
    assert not kept.exists()


def test_a_damaged_checkpoint_is_not_used(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    path = tmp_path / "kept.npz"
    checkpoint.save(path, model, optimizer, checkpoint.Progress([{"loss": 0.5}], 0.5))
    assert checkpoint.restore(path, model, optimizer) == checkpoint.Progress([{"loss": 0.5}], 0.5)
    before = model.get_weights()
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(before[0].tobytes()) + 5] ^= 1
    for damaged in (bytes(flipped), data[: len(data) // 2], b"", b"not an archive"):
        path.write_bytes(damaged)
        assert checkpoint.restore(path, model, optimizer) == checkpoint.Progress()
    assert checkpoint.restore(tmp_path / "absent.npz", model, optimizer) == checkpoint.Progress()
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_every_input_of_a_training_changes_its_key() -> None:
    data = arrays(20)
    keys = {
        train._key(recipe(), "float32", data, arrays(20, 1), 1),
        train._key(recipe(learning_rate=0.02), "float32", data, arrays(20, 1), 1),
        train._key(recipe(), "mixed_bfloat16", data, arrays(20, 1), 1),
        train._key(recipe(), "float32", arrays(20, 2), arrays(20, 1), 1),
        train._key(recipe(), "float32", data, arrays(20, 2), 1),
        train._key(recipe(), "float32", data, arrays(20, 1), 2),
        train._key(recipe(architecture="lenet"), "float32", data, arrays(20, 1), 1),
    }
    assert len(keys) == 7
    assert train._key(recipe(), "float32", arrays(20), arrays(20, 1), 1) in keys
    assert checkpoint.key([b"a", b"bc"]) != checkpoint.key([b"ab", b"c"])
