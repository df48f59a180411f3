"""The stage `train`: outputs, interruptions, checkpoints."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from stages.config import params
from stages.data import reader, writer
from stages.evaluate import evaluate
from stages.evaluation import metrics, predictions
from stages.plots import _registry
from stages.prediction.saved_model import read_signature
from stages.preprocess_folder import preprocess_folder
from stages.reporting import results
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow
from stages.tracking import logger
from stages.train import train
from stages.training import checkpoint
from stages.training.train_model import Training, _splits
from tests.conftest import ROOT, write_params


def write_records() -> None:
    """Random MNIST-like records."""
    rng = np.random.default_rng(0)
    labels = {"train": 40, "test": 20}
    examples = (
        (split, f"{split}/{number:03}", rng.integers(0, 256, (28, 28, 1)).astype(np.uint8), number % 10)
        for split, count in labels.items()
        for number in range(count)
    )
    writer.write("mnist", params.load().datasets["mnist"].class_names, list(labels), examples)


TRAINING = """
from stages import train
from stages.runtime import cli
from stages.training import checkpoint
checkpoint.SECONDS_BETWEEN = 0.0
cli.run(train.train, "model")
"""
AGAIN = """
import keras
from stages.config import params
from stages.training.train_model import Training
for path in Training.of("mnist_dense", params.load()).outputs:
    path.rename(path.with_name(f"{path.name}.resumed"))
keras.utils.clear_session()  # Keras numbers the models of a process
train.train("mnist_dense")
"""


def start(folder: Path, epochs: int, code: str = TRAINING) -> "tuple[subprocess.Popen[str], list[str]]":
    """A training in a process of its own with a checkpoint after each epoch; its output until epoch `epochs`."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "mnist_dense"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    lines = [""]
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f"epoch {epochs}/"):
            break
    return process, lines


def resumed_from(lines: list[str]) -> int:
    """The epoch that an earlier process had finished."""
    found = re.search(r"resuming from epoch (\d+), which an earlier run finished", "".join(lines))
    assert found, lines
    return int(found[1])


@pytest.mark.usefixtures("ctrl_c")
def test_killed_and_interrupted_training_ends_with_the_same_bytes(project: Path) -> None:
    """SIGKILL, then Ctrl-C, then the rest. Nothing listens meanwhile, neither the trainer nor its MLflow."""
    write_params(project, lambda values: values["train"].update(epochs=60))
    write_records()
    files = Training.of("mnist_dense", params.load()).outputs
    process, _ = start(project, 10)
    with process:
        listening = [one for one in psutil.Process(process.pid).net_connections("inet") if one.status == "LISTEN"]
        process.kill()
    assert not listening
    (checkpoint,) = Path(".dvc/tmp/checkpoints").iterdir()
    process, lines = start(project, 30)
    with process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert lines[1] == "mnist_dense: 79,510 parameters, 36 training images, float32\n"
    assert 10 <= resumed_from(lines) < 60
    assert (process.returncode, errors) == (1, "interrupted: `dvc repro` continues after the last finished stage\n")
    history = paths.history("mnist_dense")  # live, once a second
    assert checkpoint.exists() and [path for path in files if path.exists()] == [history]
    process, lines = start(project, 60, TRAINING + AGAIN)
    with process:
        _, errors = process.communicate(timeout=120)
    assert 30 <= resumed_from(lines) < 60
    assert (process.returncode, errors) == (0, "")
    resumed = [path.with_name(f"{path.name}.resumed") for path in files]
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in resumed]
    assert not checkpoint.exists()


def test_experiment_does_not_take_the_checkpoint_of_an_interrupted_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: logger.RunLogger, step: int, row: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    def long(values: Any) -> None:
        values["train"].update(epochs=3)

    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    import_tensorflow(params.load().threads)  # cannot be changed after the first operation
    write_params(project, long)
    write_records()
    with monkeypatch.context() as patch:
        patch.setattr(logger.RunLogger, "log_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("mnist_dense")
    write_params(project)  # one epoch
    train("mnist_dense")
    assert "resuming" not in capsys.readouterr().out
    write_params(project, long)
    train("mnist_dense")
    assert "resuming from epoch 1, " in capsys.readouterr().out
    assert not list(Path(".dvc/tmp/checkpoints").iterdir())


@pytest.mark.parametrize("memory", [1, 0])
def test_validation_split_of_records_is_used_whole_and_shares_no_group_with_training(
    project: Path, capsys: pytest.CaptureFixture[str], memory: int
) -> None:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "bright")):
        (project / "pets" / name).mkdir(parents=True)
        for at in range(90):
            pixels = rng.integers(120 * label, 120 * label + 100, (8, 8), np.uint8)
            Image.fromarray(pixels).save(project / f"pets/{name}/burst{at // 3}_{at}.png")

    def change(values: Any) -> None:
        entry = {"path": "pets", "classes": ["dark", "bright"], "test_fraction": 0.2, "validation_fraction": 0.2}
        values["folders"] = {"pets": {**entry, "group": r"^(burst\d+)_"}}
        values["models"]["mnist_dense"].update(dataset="pets", class_weight="balanced", abstain={"accuracy": 0.9})
        values["memory"] = memory

    write_params(project, change)
    import_tensorflow(params.load().threads)
    preprocess_folder("pets")
    train("mnist_dense")
    keys = {split: reader.load("pets", split).keys for split in ("train", "validation", "test")}
    groups = {split: {key.split("/")[1].split("_")[0] for key in found} for split, found in keys.items()}
    assert len(set.union(*groups.values())) == 30 == sum(map(len, groups.values()))
    found = predictions.read("mnist_dense")
    assert found.validation_images == len(keys["validation"])
    assert list(found.keys) == list(keys["test"])
    signature = read_signature(paths.model("mnist_dense"))
    assert 0.05 < signature["temperature"] == found.temperature < 20 and found.temperature != 1
    assert found.not_sure_below is not None and 0 < signature["not_sure_below"] == found.not_sure_below < 1
    assert metrics.answered(found) == np.mean(found.confidence >= found.not_sure_below)
    assert f"{len(keys['train'])} training images" in (said := capsys.readouterr().out)
    assert ("pets: validation takes" in said and "pets: train takes" in said) == (memory == 0)


def test_each_epoch_prints_the_validation_loss_by_which_patience_stops(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(project, lambda values: values["train"].update(epochs=2))
    import_tensorflow(params.load().threads)
    write_records()
    train("mnist_dense")
    lines = capsys.readouterr().out.splitlines()
    said = [line.partition(", validation loss ")[2].partition(",")[0] for line in lines if line.startswith("epoch ")]
    curves = results.plot_table("curves", _registry.all_plots()["curves"], "mnist_dense")
    assert said == [f"{loss:.4f}" for loss in curves["val_loss"]] and len(said) == 2


def test_without_a_validation_fraction_all_images_train_to_the_last_epoch(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(values: Any) -> None:
        values["train"] |= {"validation_fraction": 0, "epochs": 3}
        values["models"]["mnist_dense"].update(patience=1, restore_best=True, abstain={"accuracy": 0.9})

    write_params(project, change)
    import_tensorflow(params.load().threads)
    write_records()
    train("mnist_dense")
    evaluate("mnist_dense")
    assert "40 training images" in capsys.readouterr().out
    signature = read_signature(paths.model("mnist_dense"))
    assert "temperature" not in signature and "not_sure_below" not in signature
    curves = results.plot_table("curves", _registry.all_plots()["curves"], "mnist_dense")
    assert list(curves) == ["epoch", "accuracy", "loss"] and len(curves) == 3
    found = json.loads(paths.metrics("mnist_dense").read_text(encoding="utf-8"))
    assert found["images"] == 20 and not [key for key in found if key.startswith("validation")]


@pytest.mark.parametrize(("images", "fraction"), [(1, 0.5), (4, 0.1), (40, 1e-12), (40, 0.999)])
def test_split_without_images_is_one_line(images: int, fraction: float) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: train.validation_fraction: .* images of mnist leaves an empty"):
        _splits("mnist", {"train": images, "test": 10}, fraction)


def test_classes_without_images_to_train_with_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_tensorflow(params.load().threads)
    rng = np.random.default_rng(0)
    examples = [
        (split, f"{at}", rng.integers(0, 256, (28, 28, 1), np.uint8), at % 8)
        for split, count in (("train", 80), ("test", 8))
        for at in range(count)
    ]
    writer.write("mnist", params.load().datasets["mnist"].class_names, ["train", "test"], examples)
    train("mnist_dense")
    assert "mnist_dense: 2 classes, such as '8', have no images to train with" in capsys.readouterr().out
