"""The stage `export`: LiteRT files that agree with the model, the same bytes in every process."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import export
from stages.config import params
from stages.data import reader, writer
from stages.evaluation import predictions
from stages.prediction.calibration import with_temperature
from stages.prediction.saved_model import save
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow
from tests.conftest import ROOT, only, run, write_params
from tests.inference.models import CNN, write_model
from tests.reporting.project import images
from tests.training.small import predict


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model in bfloat16 and its predictions; it is the working directory."""

    def change(values: Any) -> None:
        only(values, "cifar10_small_cnn")
        values["models"]["cifar10_small_cnn"].update({key: CNN[key] for key in ("architecture", "filters", "padding")})
        values["export"] = ["cifar10_small_cnn"]

    write_params(tmp_path, change)
    monkeypatch.chdir(tmp_path)
    config = params.load()
    import_tensorflow(config.threads, gpu=False)
    name, classes = "cifar10_small_cnn", config.datasets["cifar10"].class_names
    examples = [
        (split, key, (image // 32 + 6 * label).astype(np.uint8), label)  # dark: the pixels do not span 0 to 255
        for split in ("train", "test")
        for key, image, label in images("cifar10", 40)
    ]
    writer.write("cifar10", classes, ["train", "test"], examples)
    write_model(
        paths.model(name), classes, 32, 3, "mixed_bfloat16", gain=4, facts={"source": "synthetic", "temperature": 0.5}
    )
    test = reader.load("cifar10", "test")
    predictions.write(paths.predictions(name), predict(paths.model(name), test, None, classes, "bfloat16"))
    return tmp_path


def test_exported_files_agree_with_the_model_and_have_the_same_bytes_in_every_process(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from stages.inference import litert

    name = "cifar10_small_cnn"
    export.export(name)
    printed = capfd.readouterr()
    assert printed.out.count(" ms an image with ") == 2
    assert printed.err == ""
    assert printed.out.endswith(f"{name} was trained on synthetic data: its answers say nothing about real images\n")
    files = [paths.export(name, kind) for kind in ("float32", "int8")]
    first, metrics = (
        [path.read_bytes() for path in files],
        json.loads(paths.export_metrics(name).read_text(encoding="utf-8")),
    )
    assert metrics["source"] == "synthetic"
    assert metrics["images"] == metrics["calibration_images"] == 40
    assert metrics["float32"]["agreement"] >= 0.95  # bfloat16 rounds
    assert metrics["int8"]["agreement"] >= 0.7
    assert [metrics[kind]["bytes"] for kind in ("float32", "int8")] == [len(content) for content in first]
    assert len(first[1]) < 0.4 * len(first[0])

    stored = predictions.read(name)
    test = reader.load("cifar10", "test")
    outputs, seconds = litert.run(first[0], test.inputs, 2)  # takes uint8 pixels
    np.testing.assert_allclose(outputs, stored.probabilities, atol=0.02)
    assert seconds > 0
    outputs, _ = litert.run(first[1], test.inputs, 2)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, stored.probabilities, atol=0.1)

    before = paths.export_metrics(name).read_bytes()
    done = run(
        trained, sys.executable, "-m", "stages.export", f"export@{name}", PYTHONPATH=str(ROOT), PYTHONHASHSEED="1"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.read_bytes() for path in files] == first
    assert paths.export_metrics(name).read_bytes() == before


@pytest.mark.parametrize(
    "name", ["mnist_dense", "mnist_cnn", "fashion_mnist_lenet", "fashion_mnist_resnet", "cifar10_airbench93"]
)
def test_temperature_divides_the_logits_of_every_architecture(tmp_path: Path, name: str) -> None:
    """Also where a normalization with statistics of the images stands between them and the last weights."""
    import keras

    from stages.inference.litert import float32_twin
    from stages.training.network import build_model

    keras.utils.set_random_seed(1)
    side, channels = (32, 3) if name.startswith("cifar") else (28, 1)
    model = build_model(params.load(ROOT / "params.yaml").models[name], (side, side, channels), np.dtype("uint8"), 10)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:  # biases, too, without which all layers would scale alike
        variable.assign_add(0.05 * random.standard_normal(variable.shape))
    for variable in model.non_trainable_weights:
        variable.assign_add(random.random(variable.shape))  # means and variances, which training moves
    save(model, tmp_path / "m.keras", {})
    pixels = random.integers(0, 256, (20, side, side, channels)).astype(np.uint8)
    expected = with_temperature(model.predict(pixels, verbose=0), 0.5)
    found = float32_twin(tmp_path / "m.keras", 0.5).predict(pixels, verbose=0)
    np.testing.assert_allclose(found, expected, atol=0.005)


def test_int8_file_takes_raw_pixels_of_dark_images_and_disagreement_fails(trained: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    name = "cifar10_small_cnn"
    export.export(name)
    int8 = paths.export(name, "int8")
    (source,) = Interpreter(model_content=int8.read_bytes()).get_input_details()
    assert (source["dtype"], source["quantization"]) == (np.uint8, (1.0, 0))

    stored = predictions.read(name)
    others = np.where(np.arange(40) % 4, stored.predicted, (stored.predicted + 1) % 10).astype(np.int32)
    predictions.write(paths.predictions(name), dataclasses.replace(stored, predicted=others))
    with pytest.raises(
        UserError, match=r"float32.tflite: not written: 7.* of 40 predictions agree .*, less than 80%; "
    ):
        export.export(name)
    assert (
        not int8.exists()
        and json.loads(paths.export_metrics(name).read_text(encoding="utf-8"))["int8"]["agreement"] < 0.8
    )


def test_onnx_file_agrees_with_the_model(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason="not in requirements.txt: `.venv/bin/pip install tf2onnx onnx onnxruntime`")
    from tools.release.onnx import onnx

    onnx("cifar10_small_cnn")
    assert capsys.readouterr().out.endswith(" of 40 predictions agree with the model's\n")
    assert Path("data/export/cifar10_small_cnn.onnx").exists()
