"""The images that are shown are those of the records."""

from pathlib import Path

import numpy as np
import pytest

from stages import gallery, params
from stages.console import UserError
from tests.conftest import examples


@pytest.fixture
def folder(measured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(measured)
    return measured


def test_samples_of_every_class(folder: Path) -> None:
    names = params.load().datasets["mnist"].class_names
    samples = gallery.samples("mnist", dict.fromkeys(names, 4))
    assert list(samples) == names
    written = {image.squeeze().tobytes(): label for _, image, label in examples("mnist", 40)}
    for label, name in enumerate(names):
        assert [written[image.tobytes()] for image in samples[name]] == [label] * 4


def test_images_by_key(folder: Path) -> None:
    written = {key: image for key, image, _ in examples("cifar10", 20)}
    keys = list(written)[3:5]
    found = gallery.tested("cifar10", keys)
    assert {key: image.tobytes() for key, image in found.items()} == {key: written[key].tobytes() for key in keys}


def test_large_images_are_cut_and_reduced(folder: Path) -> None:
    (key, *_), *_ = examples("imagenette", 1)
    assert gallery.tested("imagenette", [key])[key].size == (gallery.SIDE, gallery.SIDE)


def test_one_image_augmented_nine_ways(folder: Path) -> None:
    recipe = params.load().models["cifar10_small_cnn_augmented"]
    first, *ways = gallery.augmented(recipe, seed=1)
    assert first.tobytes() in {image.tobytes() for _, image, _ in examples("cifar10", 40)}
    assert len({way.tobytes() for way in (first, *ways)}) == 10
    assert [way.tobytes() for way in gallery.augmented(recipe, seed=1)[1:]] == [way.tobytes() for way in ways]
    assert [way.tobytes() for way in gallery.augmented(recipe, seed=2)[1:]] != [way.tobytes() for way in ways]
    assert np.asarray(ways[0]).dtype == np.uint8


def test_damaged_records_are_named(folder: Path) -> None:
    (shard,) = Path("data/records/mnist").glob("*-train.tfrecord-*")
    good = shard.read_bytes()
    try:
        for damaged in (good[:3000] + bytes([good[3000] ^ 1]) + good[3001:], good[:3000]):
            shard.write_bytes(damaged)
            with pytest.raises(UserError, match=r"^data/records/mnist: damaged: split 'train"):
                gallery.samples("mnist", dict.fromkeys("0123456789", 4))
    finally:
        shard.write_bytes(good)
