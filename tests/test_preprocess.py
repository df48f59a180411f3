"""Archives as drawn, records as read: the same images, and a table that counts them; and images that are none."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import params, preprocess, records, sample
from stages.console import UserError
from stages.formats import cifar, idx
from tests import test_jpeg as images
from tests.conftest import of_split, write_params


@pytest.mark.parametrize(("name", "reader"), [("fashion_mnist", idx.examples), ("cifar10", cifar.examples)])
def test_every_image_arrives(project: Path, name: str, reader: preprocess.Reader) -> None:
    dataset = params.load().datasets[name]
    sample.draw(name, dataset, Path("data/raw") / name)
    preprocess.preprocess(name)
    assert records.info(name).features["label"].names == dataset.class_names
    table = json.loads((Path("data/counts") / f"{name}.json").read_text())
    for split, size in {"train": 40, "test": 20}.items():
        arrays = records.load(name, split)
        found = dict(zip(arrays.keys, zip(arrays.inputs, arrays.labels, strict=True), strict=True))
        examples = of_split(split, reader(Path("data/raw") / name, dataset.classes))
        assert len(found) == len(examples) == size
        for key, image, label in examples:
            assert np.array_equal(found[key][0], image)
            assert found[key][1] == label
        counts = Counter(dataset.class_names[label] for _, _, label in examples)
        assert table[split] == {label: counts[label] for label in dataset.class_names}


CLASSES = {"n 1": "façade, 正面", "ñandú": "greater rhea", "; touch x": "$(touch x)"}
NAMES = list(CLASSES.values())


def photos(files: dict[str, bytes], skip: bool = False) -> None:
    """An image folder, as the archive of imagenette: an image of each class in each split, and `files`."""

    def change(values: Any) -> None:
        values["datasets"]["imagenette"]["classes"] = CLASSES
        values["skip_bad_images"] = skip

    write_params(Path(), change)
    usual = {f"{split}/{name}/a.JPEG": images.GOOD for split in ("train", "val") for name in CLASSES}
    path = Path("data/raw/imagenette/imagenette.tgz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {**usual, **files}.items():
            member = tarfile.TarInfo(f"top/{name}")
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def written() -> set[Path]:
    """All files but the archive."""
    return {path for path in Path().rglob("*") if path.is_file()} - {*Path("data/raw").rglob("*"), Path("params.yaml")}


def test_images_of_every_kind_arrive_as_their_pixels_lie(project: Path) -> None:
    """Grey and CMYK become RGB; a turn that EXIF asks for is not made; class names of any letters."""
    photos({f"train/n 1/{name}.JPEG": data for name, data in images.IMAGES.items()})
    preprocess.preprocess("imagenette")
    assert records.info("imagenette").features["label"].names == NAMES
    found = records.read("imagenette", "train").as_numpy_iterator()
    arrays = {example["key"].decode(): example["input"].astype(int) for example in found}
    assert set(arrays) == {f"{name}/a.JPEG" for name in CLASSES} | {f"n 1/{name}.JPEG" for name in images.IMAGES}
    expected = np.asarray(images.picture()).astype(int)
    for name in ("CMYK", "EXIF", "progressive", "bytes behind its end"):
        assert np.abs(arrays[f"n 1/{name}.JPEG"] - expected).mean() < 16, name
    grey = np.asarray(Image.open(io.BytesIO(images.IMAGES["grey"]))).astype(int)
    assert np.array_equal(arrays["n 1/grey.JPEG"], np.stack([grey] * 3, axis=-1))
    assert arrays["n 1/one pixel.JPEG"].shape == (1, 1, 3)
    assert records.load("imagenette", "train", image_size=8).inputs.shape == (len(arrays), 8, 8, 3)
    assert not any(path.name == "x" for path in Path().rglob("*"))


@pytest.mark.parametrize("fault", ["empty", "text", "PNG", "truncated", "large"])
def test_what_is_no_image_is_named_and_nothing_is_written(project: Path, fault: str) -> None:
    data, message = images.FAULTS[fault]
    photos({"val/ñandú/b.JPEG": data})
    with pytest.raises(
        UserError, match=r"^data/raw/imagenette: test: 'ñandú/b.JPEG' .*skip_bad_images: true"
    ) as caught:
        preprocess.preprocess("imagenette")
    assert message in str(caught.value)
    assert written() == set()


def test_what_is_no_image_is_skipped_and_listed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos({f"train/n 1/{name}.JPEG": data for name, (data, _) in images.FAULTS.items()}, skip=True)
    preprocess.preprocess("imagenette")
    table = json.loads(Path("data/skipped/imagenette.json").read_text())
    assert table == {
        "train": {f"n 1/{name}.JPEG": table["train"][f"n 1/{name}.JPEG"] for name in images.FAULTS},
        "test": {},
    }
    assert all(message in table["train"][f"n 1/{name}.JPEG"] for name, (_, message) in images.FAULTS.items())
    assert json.loads(Path("data/counts/imagenette.json").read_text())["train"] == dict.fromkeys(NAMES, 1)
    assert sorted(records.load("imagenette", "train", 8).keys) == sorted(f"{name}/a.JPEG" for name in CLASSES)
    assert f"skipped {len(images.FAULTS)} files" in capsys.readouterr().out


@pytest.mark.parametrize("skip", [False, True])
def test_a_class_without_training_images_is_named(project: Path, skip: bool) -> None:
    photos({"train/n 1/": b""}, skip)
    values = Path("params.yaml").read_text()
    assert values.count("ñandú: greater rhea") == 1
    Path("params.yaml").write_text(values.replace("ñandú: greater rhea", "ñandú: greater rhea\n      other: kiwi"))
    with pytest.raises(UserError, match="data/raw/imagenette: class 'kiwi' has no training images"):
        preprocess.preprocess("imagenette")
    assert written() == set()


def test_names_may_occur_in_several_classes_but_only_once_in_each(project: Path) -> None:
    photos({"train/ñandú/b.JPEG": images.GOOD, "train/n 1/b.JPEG": images.GOOD})
    preprocess.preprocess("imagenette")
    assert len(records.load("imagenette", "train", 8).keys) == 5
    with tarfile.open("data/raw/imagenette/imagenette.tgz", "w:gz") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("top/train/n 1/b.JPEG")
            member.size = len(images.GOOD)
            archive.addfile(member, io.BytesIO(images.GOOD))
    with pytest.raises(UserError, match=r"imagenette: split 'train' holds two images named 'n 1/b\.JPEG'"):
        preprocess.preprocess("imagenette")
