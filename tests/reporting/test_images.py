"""Example images are those of the records."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.config import params
from stages.config.models import PartConfig
from stages.data import writer
from stages.reporting import images
from stages.runtime.errors import UserError
from tests.reporting import project


@pytest.fixture
def folder(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(evaluated)
    return evaluated


def test_every_class_has_examples(folder: Path) -> None:
    names = params.load().datasets["mnist"].class_names
    examples = images.examples("mnist", names)
    assert list(examples) == names
    written = {image.squeeze().tobytes(): label for _, image, label in project.images("mnist", 40)}
    for label, name in enumerate(names):
        assert [written[image.tobytes()] for image in examples[name]] == [label] * 4


def test_many_classes_have_examples_of_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classes = [f"class {label}" for label in range(100)]
    pixels = np.zeros((1000, 8, 8, 1), np.uint8)
    examples = [("train", str(number), pixels[number], number % 100) for number in range(1000)]
    writer.write("many", classes, ["train", "test"], [*examples, ("test", "0", pixels[0], 0)])
    found = images.examples("many", classes)
    assert [len(row) for row in found.values()] == [images.PER_CLASS] * 20
    assert list(found) == [name for name in classes if name in found]
    monkeypatch.setattr(images, "SCANNED", 30)
    assert sum(map(len, images.examples("many", classes).values())) <= 30


def test_a_class_without_training_images_has_no_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = np.zeros((8, 8, 1), np.uint8)
    writer.write("two", ["a", "b"], ["train"], [("train", "0", image, 1)])
    assert {name: len(row) for name, row in images.examples("two", ["a", "b"]).items()} == {"a": 0, "b": 1}


def test_test_images_are_found_by_their_keys(folder: Path) -> None:
    written = {key: image for key, image, _ in project.images("cifar10", 20)}
    keys = list(written)[3:5]
    found = images.split_images("cifar10", "test", keys)
    assert {key: image.tobytes() for key, image in found.items()} == {key: written[key].tobytes() for key in keys}


def test_large_images_become_thumbnails(folder: Path) -> None:
    (key, *_), *_ = project.images("imagenette", 1)
    whole = images.split_images("imagenette", "test", [key])[key]
    assert images.thumbnail(whole).size == (images.SIDE, images.SIDE)


def test_heat_map_lies_on_what_the_model_sees() -> None:
    """A mark at the left edge, which a crop cuts off."""
    image = Image.new("RGB", (400, 200))
    image.paste((255, 0, 0), (0, 0, 40, 200))
    for fit, marked in (("crop", False), ("pad", True), ("stretch", True)):
        seen = images.as_seen(image, (96, 96), fit)
        assert seen.size == (images.SIDE, images.SIDE)
        assert bool((np.array(seen)[..., 0] > 200).any()) == marked, fit
    assert images.as_seen(image.resize((40, 20)), (28, 28), "pad").size == (40, 40)  # a small one, pixel by pixel


def test_an_image_is_augmented_by_the_seed(folder: Path) -> None:
    model = params.load().models["cifar10_small_cnn_augmented"]
    first, *augmented = images.augmented(model, seed=1)
    assert first.tobytes() in {image.tobytes() for _, image, _ in project.images("cifar10", 40)}
    assert len({image.tobytes() for image in (first, *augmented)}) == 1 + images.NUM_AUGMENTED
    again, other = (images.augmented(model, seed)[1:] for seed in (1, 2))
    assert [image.tobytes() for image in again] == [image.tobytes() for image in augmented]
    assert [image.tobytes() for image in other] != [image.tobytes() for image in augmented]


@pytest.mark.parametrize("augmentation", ["mixup", "cutmix"])
def test_an_image_is_mixed_with_other_images(folder: Path, augmentation: str) -> None:
    """Mixed with copies of itself, it would stay as it is."""
    model = params.load().models["cifar10_small_cnn_augmented"]
    part = PartConfig.model_validate({"name": augmentation, "alpha": 1.0})
    first, *augmented = images.augmented(model.model_copy(update={"augment": [part]}), seed=1)
    assert sum(image.tobytes() != first.tobytes() for image in augmented) > images.NUM_AUGMENTED // 2


def test_corrupt_records_are_named(folder: Path) -> None:
    (shard,) = Path("data/records/mnist").glob("*-train.tfrecord-*")
    good = shard.read_bytes()
    try:
        for corrupt in (good[:3000] + bytes([good[3000] ^ 1]) + good[3001:], good[:3000]):
            shard.write_bytes(corrupt)
            with pytest.raises(UserError, match=r"^data/records/mnist: corrupt: split 'train"):
                images.examples("mnist", list("0123456789"))
    finally:
        shard.write_bytes(good)
