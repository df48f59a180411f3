"""Bottleneck features are those of Keras's VGG16, stored as records like any other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import extract, params, records
from stages.files import replacing
from stages.sample import draw
from tests.conftest import write_params


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_features_are_those_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    import keras

    def change(values: dict[str, Any]) -> None:
        values["features"]["imagenette_vgg16"].update(image_size=64, precision=precision)

    write_params(tmp_path, change)
    monkeypatch.chdir(tmp_path)
    weights = params.load().weights["vgg16"]
    draw("vgg16", weights, Path("data/raw/vgg16"))
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    labels = [0, 1, 2, 3, 4, 5]
    classes = params.load().datasets["imagenette"].class_names
    examples = [(f"n/{i}.JPEG", image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    records.write("imagenette", classes, {"train": examples[:4], "test": examples[4:]})

    policy = keras.config.dtype_policy()
    try:
        extract.extract("imagenette_vgg16")
    finally:
        keras.config.set_dtype_policy(policy)

    (file,) = weights.files
    keras_model = keras.applications.VGG16(include_top=False, weights=str(Path("data/raw/vgg16") / file))
    expected = keras_model.predict(keras.applications.vgg16.preprocess_input(images.astype("float32")), verbose=0)
    found = records.load("imagenette_vgg16", "train")
    assert found.inputs.shape == (4, 2, 2, 512)
    assert sorted(found.keys) == ["n/0.JPEG", "n/1.JPEG", "n/2.JPEG", "n/3.JPEG"]
    assert list(found.keys) == list(records.load("imagenette", "train").keys)  # the same place in the same split
    for key, features, label in zip(found.keys, found.inputs, found.labels, strict=True):
        index = int(key[2])
        cosine = np.vdot(features.astype(float), expected[index]) / np.linalg.norm(features.astype(float))
        assert cosine / np.linalg.norm(expected[index]) > 0.999
        assert label == labels[index]
    assert records.info("imagenette_vgg16").features["label"].names == classes


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out" / "metrics.json"
    with replacing(target) as part:
        part.write_text("old")
    with pytest.raises(IsADirectoryError), replacing(target) as part:  # noqa: PT012 (the block has to fail half-way)
        part.write_text("half")
        tmp_path.read_bytes()
    assert target.read_text() == "old"
    target.with_name(".metrics.json.part").write_text("left by a killed process")
    with replacing(target) as part:
        part.write_text("new")
    assert [path.name for path in target.parent.iterdir()] == ["metrics.json"]
    assert target.read_text() == "new"


def test_light_stages_import_nothing_heavy() -> None:
    """A stage that needs no TensorFlow does not pay for it; none pays before its parameters are known to be good."""
    modules = ["download", "preprocess", "extract", "train", "evaluate", "report", "params", "sample"]
    code = (
        f"import sys, json, importlib\nfor name in {modules}: importlib.import_module('stages.' + name)\n"
        "print(json.dumps([name for name in ('tensorflow', 'keras', 'mlflow') if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
