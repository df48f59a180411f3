"""The stage extract: the features of Keras's VGG16, stored as records."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core.utils import shard_utils

from stages.config import params
from stages.data import reader, writer
from tests.conftest import ROOT, run, write_params
from tests.data.archives import generate

INTERRUPTED = """
from stages.data import writer
from stages.extract import extract
from stages.runtime.cli import guard

write = writer.write_shard

def interrupt(path, examples):
    if "train" in path.name and "00002" in path.name:
        next(iter(examples))
        raise KeyboardInterrupt
    write(path, examples)

writer.write_shard = interrupt
guard(lambda: extract("imagenette_vgg16"))
"""


@pytest.mark.parametrize("compute_dtype", ["float32", "auto"])
def test_features_are_those_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compute_dtype: str) -> None:
    import keras

    def change(values: dict[str, Any]) -> None:
        values["features"]["imagenette_vgg16"].update(image_size=64, compute_dtype=compute_dtype)

    write_params(tmp_path, change)
    monkeypatch.chdir(tmp_path)
    weights = params.load().weights["vgg16"]
    generate("vgg16")
    images = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), np.uint8)
    labels = [0, 1, 2, 3, 4, 5, 6]
    classes = params.load().datasets["imagenette"].class_names
    splits = ["train"] * 4 + ["validation"] + ["test"] * 2
    keys = [f"n/{i}.JPEG" for i in range(7)]
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", 10_000)  # bytes: a shard for each image
    writer.write("imagenette", classes, ["train", "validation", "test"], zip(splits, keys, images, labels, strict=True))

    # In a process of its own: the number of threads can be set only once. An earlier one was interrupted.
    assert run(tmp_path, sys.executable, "-c", INTERRUPTED, PYTHONPATH=str(ROOT)).returncode == 1
    done = run(tmp_path, sys.executable, "-m", "stages.extract", "extract@imagenette_vgg16", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    environment = json.loads(Path("data/environment/extract/imagenette_vgg16.json").read_text(encoding="utf-8"))
    assert environment["threads"] == str(params.load().threads)
    assert environment["compute_dtype"] in done.stdout
    assert "imagenette_vgg16: resuming with 2 shards that an earlier run finished\n" in done.stdout
    assert not list(Path(".dvc/tmp/extractions").iterdir())

    (file,) = weights.files
    keras_model = keras.applications.VGG16(include_top=False, weights=str(Path("data/raw/vgg16") / file))
    expected = keras_model.predict(keras.applications.vgg16.preprocess_input(images.astype("float32")), verbose=0)
    found = reader.load("imagenette_vgg16", "train")
    assert found.inputs.shape == (4, 2, 2, 512)
    assert sorted(found.keys) == ["n/0.JPEG", "n/1.JPEG", "n/2.JPEG", "n/3.JPEG"]
    assert list(found.keys) == list(reader.load("imagenette", "train").keys)  # the same order
    for key, features, label in zip(found.keys, found.inputs, found.labels, strict=True):
        index = int(key[2])
        cosine = np.vdot(features.astype(float), expected[index]) / np.linalg.norm(features.astype(float))
        assert cosine / np.linalg.norm(expected[index]) > 0.999
        assert label == labels[index]
    written = reader.info("imagenette_vgg16")
    assert written.features["label"].names == classes
    shards = {"train": [1] * 4, "validation": [1], "test": [1] * 2}
    assert {split: info.shard_lengths for split, info in written.splits.items()} == shards
