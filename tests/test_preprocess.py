"""The stage preprocess: records with the images of the archive, their counts, and invalid images."""

import io
import json
import tarfile
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import preprocess
from stages.config import params
from stages.data import reader
from stages.data.formats import cifar, idx
from stages.runtime.errors import UserError
from tests.conftest import of_split, write_params
from tests.data import test_jpeg as images
from tests.data.archives import generate


@pytest.mark.parametrize(("name", "examples_of"), [("fashion_mnist", idx.examples), ("cifar10", cifar.examples)])
def test_every_image_is_in_the_records(project: Path, name: str, examples_of: Any) -> None:
    dataset = params.load().datasets[name]
    generate(name)
    preprocess.preprocess(name)
    assert reader.info(name).features["label"].names == dataset.class_names
    table = json.loads((Path("data/counts") / f"{name}.json").read_text(encoding="utf-8"))
    for split, size in {"train": 40, "test": 20}.items():
        arrays = reader.load(name, split)
        found = dict(zip(arrays.keys, zip(arrays.inputs, arrays.labels, strict=True), strict=True))
        examples = of_split(split, examples_of(Path("data/raw") / name, dataset.classes))
        assert len(found) == len(examples) == size
        for key, image, label in examples:
            assert np.array_equal(found[key][0], image)
            assert found[key][1] == label
        counts = Counter(dataset.class_names[label] for _, _, label in examples)
        assert table[split] == {label: counts[label] for label in dataset.class_names}


CLASSES = {"n 1": "façade, 正面", "ñandú": "greater rhea", "; touch x": "$(touch x)"}
NAMES = [CLASSES[folder] for folder in sorted(CLASSES)]  # the order of keys decides nothing
FILE = [{"url": "file:///nowhere", "hash": "md5:" + "0" * 32}]


def photos(files: dict[str, bytes], skip: bool = False) -> None:
    """Write an archive of imagenette with an image of each class in each split, and `files`."""

    def change(values: Any) -> None:
        values["datasets"]["imagenette"]["classes"] = CLASSES
        values["skip_invalid_images"] = skip

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
    """All files except the archive and params.yaml."""
    return {path for path in Path().rglob("*") if path.is_file()} - {*Path("data/raw").rglob("*"), Path("params.yaml")}


def test_valid_images_of_any_kind_are_stored_without_rotation(project: Path) -> None:
    """Grayscale and CMYK become RGB; the EXIF orientation is ignored; class names may have any letters."""
    photos({f"train/n 1/{name}.JPEG": data for name, data in images.VALID.items()})
    preprocess.preprocess("imagenette")
    assert reader.info("imagenette").features["label"].names == NAMES
    found = reader.read("imagenette", "train").as_numpy_iterator()
    arrays = {example["key"].decode(): example["input"].astype(int) for example in found}
    assert set(arrays) == {f"{name}/a.JPEG" for name in CLASSES} | {f"n 1/{name}.JPEG" for name in images.VALID}
    expected = np.asarray(images.make_image()).astype(int)
    for name in ("CMYK", "EXIF", "progressive", "bytes after its end"):
        assert np.abs(arrays[f"n 1/{name}.JPEG"] - expected).mean() < 16, name
    gray = np.asarray(Image.open(io.BytesIO(images.VALID["grayscale"]))).astype(int)
    assert np.array_equal(arrays["n 1/grayscale.JPEG"], np.stack([gray] * 3, axis=-1))
    assert arrays["n 1/one pixel.JPEG"].shape == (1, 1, 3)
    assert reader.load("imagenette", "train", image_size=8).inputs.shape == (len(arrays), 8, 8, 3)
    assert not any(path.name == "x" for path in Path().rglob("*"))


@pytest.mark.parametrize("kind", ["empty", "text", "PNG", "truncated", "large"])
def test_invalid_image_is_named_and_nothing_is_written(project: Path, kind: str) -> None:
    data, message = images.INVALID[kind]
    photos({"val/ñandú/b.JPEG": data})
    with pytest.raises(
        UserError, match=r"^data/raw/imagenette: test: 'ñandú/b.JPEG' .*skip_invalid_images: true"
    ) as caught:
        preprocess.preprocess("imagenette")
    assert message in str(caught.value)
    assert written() == set()


def test_invalid_image_is_skipped_and_listed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos({f"train/n 1/{name}.JPEG": data for name, (data, _) in images.INVALID.items()}, skip=True)
    preprocess.preprocess("imagenette")
    table = json.loads(Path("data/skipped/imagenette.json").read_text(encoding="utf-8"))
    assert table == {
        "train": {f"n 1/{name}.JPEG": table["train"][f"n 1/{name}.JPEG"] for name in images.INVALID},
        "test": {},
    }
    assert all(message in table["train"][f"n 1/{name}.JPEG"] for name, (_, message) in images.INVALID.items())
    assert json.loads(Path("data/counts/imagenette.json").read_text(encoding="utf-8"))["train"] == dict.fromkeys(
        NAMES, 1
    )
    assert sorted(reader.load("imagenette", "train", 8).keys) == sorted(f"{name}/a.JPEG" for name in CLASSES)
    assert f"skipped {len(images.INVALID)} files that are not valid images" in capsys.readouterr().out


BAD_FORMAT = """import numpy as np
def examples(folder, classes):
    for split in ("train", "test"):
        for label in range(3):
            yield split, str(label), np.zeros((4, 4, 1), np.uint8), np.int64(label)
    {}
"""


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("yield 'train', 'a', np.ones((4, 4, 1)), 0", "has as image float64 (4, 4, 1); yield uint8"),
        ("yield 'train', 'a', np.ones((4, 4), np.uint8), 0", "has as image uint8 (4, 4); yield uint8"),
        ("yield 'train', 'a', np.ones((4, 5, 1), np.uint8), 0", "has as image uint8 (4, 5, 1) after "),
        ("yield 'train', 'a', b'', 0", "has as image bytes after others; yield one type and size for all"),
        ("yield 'train', 'a', 'a.png', 0", "has as image str; yield uint8"),
        ("yield 'train', 'a', np.ones((4, 4, 1), np.uint8), 3", "has the label 3 of 3 classes in params.yaml; "),
        ("yield 'train', 'a', np.ones((4, 4, 1), np.uint8), -1", "has the label -1 of 3 classes in params.yaml; "),
        ("yield 'train', 'a', np.ones((4, 4, 1), np.uint8), 0.0", "is not (split, key, image, label): 'float' object"),
        ("yield 'val', 'a', np.ones((4, 4, 1), np.uint8), 0", "has the split 'val'; yield one of train, test"),
        ("yield 'train', 7, np.ones((4, 4, 1), np.uint8), 0", "is not (split, key, image, label): 'int' object"),
        ("yield 'train', 'a', np.ones((4, 4, 1), np.uint8)", "is not (split, key, image, label): not enough values"),
        ("yield None", "is not (split, key, image, label): cannot unpack"),
    ],
)
def test_format_that_yields_something_else_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, last: str, message: str
) -> None:
    module = types.ModuleType("bad")
    exec(BAD_FORMAT.format(last), module.__dict__)
    monkeypatch.setattr(preprocess, "load_plugin", lambda *names: module)
    write_params(project, lambda values: values["datasets"]["mnist"].update(classes=["a", "b", "c"]))
    with pytest.raises(UserError) as caught:
        preprocess.preprocess("mnist")
    assert str(caught.value).startswith(f"stages/data/formats/idx.py: example 6 {message}")
    assert written() == set()


@pytest.mark.parametrize("skip", [False, True])
def test_class_without_training_images_is_named(project: Path, skip: bool) -> None:
    photos({"train/n 1/": b""}, skip)
    values = Path("params.yaml").read_text(encoding="utf-8")
    assert values.count("ñandú: greater rhea") == 1
    Path("params.yaml").write_text(
        values.replace("ñandú: greater rhea", "ñandú: greater rhea\n      other: kiwi"), encoding="utf-8"
    )
    with pytest.raises(UserError, match="data/raw/imagenette: class 'kiwi' has no training images"):
        preprocess.preprocess("imagenette")
    assert written() == set()


def test_file_name_twice_in_a_class_is_an_error(project: Path) -> None:
    photos({"train/ñandú/b.JPEG": images.GOOD, "train/n 1/b.JPEG": images.GOOD})
    preprocess.preprocess("imagenette")
    assert len(reader.load("imagenette", "train", 8).keys) == 5
    with tarfile.open("data/raw/imagenette/imagenette.tgz", "w:gz") as archive:
        usual = [f"{split}/{name}/a.JPEG" for split in ("train", "val") for name in CLASSES]
        for name in [*usual, "train/n 1/b.JPEG", "train/n 1/b.JPEG"]:
            member = tarfile.TarInfo(f"top/{name}")
            member.size = len(images.GOOD)
            archive.addfile(member, io.BytesIO(images.GOOD))
    with pytest.raises(UserError, match=r"imagenette: split 'train' has two images named 'n 1/b\.JPEG'"):
        preprocess.preprocess("imagenette")
