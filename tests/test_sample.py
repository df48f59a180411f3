"""stages/sample.py: the published formats, the same bytes each time, classes that can be learnt but not trivially."""

import gzip
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from operator import itemgetter
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from stages import sample
from stages.console import UserError
from stages.formats import cifar, idx, image_folder
from stages.params import Dataset, SampleSize, Source, Weights
from tests.conftest import of_split

ROOT = Path(__file__).parent.parent
SOURCES = [Source(url="file:///nowhere", hash="md5:" + "0" * 32)]
IDX_FILES = [f"{prefix}-{kind}-ubyte.gz" for prefix in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
DIGITS = [str(digit) for digit in range(10)]
FOLDERS = {f"n{number:08d}": f"thing {number}" for number in range(10)}
H5 = "vgg16_notop.h5"
WEIGHTS = Weights(files={H5: SOURCES})

# Run as a program in the processes below, so that they draw what the tests draw.
DRAW_ALL = """
import sys
from pathlib import Path
from tests import test_sample
test_sample.draw_all(Path(sys.argv[1]))
"""


def dataset(
    kind: str, files: list[str], classes: list[str] | dict[str, str], train: int = 40, test: int = 20
) -> Dataset:
    size = SampleSize(train=train, test=test)
    return Dataset(format=kind, classes=classes, sample=size, files=dict.fromkeys(files, SOURCES))


def draw_all(folder: Path) -> None:
    sample.draw("mnist", dataset("idx", IDX_FILES, DIGITS), folder / "mnist")
    sample.draw("cifar10", dataset("cifar", ["c.tar.gz"], DIGITS), folder / "cifar10")
    sample.draw("imagenette", dataset("image_folder", ["imagenette2-320.tgz"], FOLDERS), folder / "imagenette")
    sample.draw("vgg16", WEIGHTS, folder / "vgg16")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_all(folder)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_other_processes_draw_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        subprocess.run([sys.executable, "-c", DRAW_ALL, tmp_path / seed], cwd=ROOT, env=environment, check=True)
        assert hashes(tmp_path / seed) == hashes(drawn)


def test_archives_carry_no_date_and_no_owner(drawn: Path) -> None:
    for path in drawn.rglob("*gz"):
        assert path.read_bytes()[3:8] == bytes(5), path  # gzip: no flags, so no name; no time
    for path in (drawn / "cifar10" / "c.tar.gz", drawn / "imagenette" / "imagenette2-320.tgz"):
        with tarfile.open(path) as archive:
            assert {(member.mtime, member.uid, member.gid, member.mode) for member in archive} == {(0, 0, 0, 0o644)}


@pytest.mark.parametrize(("split", "prefix", "count"), [("train", "train", 40), ("test", "t10k", 20)])
def test_idx_is_read_back_as_it_was_drawn(drawn: Path, split: str, prefix: str, count: int) -> None:
    images = gzip.decompress((drawn / "mnist" / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((drawn / "mnist" / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    assert struct.unpack(">IIII", images[:16]) == (2051, count, 28, 28)
    assert struct.unpack(">II", labels[:8]) == (2049, count)
    found = of_split(split, idx.examples(drawn / "mnist", DIGITS))
    assert b"".join(image.tobytes() for _, image, _ in found) == images[16:]
    assert bytes(label for _, _, label in found) == labels[8:]
    assert found[0][1].shape == (28, 28, 1)
    assert Counter(labels[8:]) == Counter(list(range(10)) * (count // 10))


def test_cifar_is_read_back_as_it_was_drawn(drawn: Path) -> None:
    with tarfile.open(drawn / "cifar10" / "c.tar.gz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    top = "cifar-10-batches-bin"
    assert members[f"{top}/batches.meta.txt"].decode() == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n\n"
    train = b"".join(members[f"{top}/data_batch_{number}.bin"] for number in range(1, 6))
    for split, data, count in (("train", train, 40), ("test", members[f"{top}/test_batch.bin"], 20)):
        records = np.frombuffer(data, np.uint8).reshape(count, 3073)
        _, images, labels = zip(
            *sorted(of_split(split, cifar.examples(drawn / "cifar10", DIGITS)), key=itemgetter(0)), strict=True
        )
        assert Counter(labels) == Counter(list(range(10)) * (count // 10))
        np.testing.assert_array_equal(labels, records[:, 0])
        for channel in range(3):
            plane = records[:, 1 + 1024 * channel : 1025 + 1024 * channel].reshape(count, 32, 32)
            np.testing.assert_array_equal(np.stack(images)[..., channel], plane)


def test_image_folder_is_read_back_as_it_was_drawn(drawn: Path) -> None:
    with tarfile.open(drawn / "imagenette" / "imagenette2-320.tgz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert members.pop("imagenette2-320/noisy_imagenette.csv")
    for split, split_folder, count in (("train", "train", 40), ("test", "val", 20)):
        found = of_split(split, image_folder.examples(drawn / "imagenette", FOLDERS))
        start = f"imagenette2-320/{split_folder}/"
        expected = {name.removeprefix(start): data for name, data in members.items() if name.startswith(start)}
        assert {key: image for key, image, _ in found} == expected
        assert len(found) == count
        assert all(list(FOLDERS)[label] == key.split("/")[0] for key, _, label in found)
    pictures = [Image.open(io.BytesIO(data)) for data in members.values()]
    assert {picture.format for picture in pictures} == {"JPEG"}
    assert Counter(picture.mode for picture in pictures)["L"] == 3
    assert all(64 <= min(picture.size) <= 160 for picture in pictures)
    assert len({picture.size for picture in pictures}) > 50


def test_four_of_ten_test_images_are_named_as_unseen(tmp_path: Path) -> None:
    entry = dataset("image_folder", ["a.tgz"], FOLDERS, train=20, test=100)
    sample.draw("imagenette", entry, tmp_path)
    unseen = Counter(
        label
        for key, _, label in of_split("test", image_folder.examples(tmp_path, FOLDERS))
        if re.fullmatch(r"n\d+/ILSVRC2012_val_\d{8}\.JPEG", key)
    )
    assert unseen == dict.fromkeys(range(10), 4)


@pytest.mark.parametrize("kind", ["idx", "cifar"])
def test_linear_model_is_neither_lost_nor_perfect(tmp_path: Path, kind: str) -> None:
    from sklearn.linear_model import LogisticRegression

    name, files, form = {"idx": ("mnist", IDX_FILES, idx), "cifar": ("cifar10", ["c.tar.gz"], cifar)}[kind]
    sample.draw(name, dataset(kind, files, DIGITS, train=400, test=200), tmp_path)
    data = {}
    for split in ("train", "test"):
        _, images, labels = zip(*of_split(split, form.examples(tmp_path, DIGITS)), strict=True)
        data[split] = (np.stack(images).reshape(len(images), -1)[:, ::2] / 255, np.array(labels))
    model = LogisticRegression(C=0.1, max_iter=300, tol=0.01).fit(*data["train"])
    assert 0.35 < model.score(*data["test"]) < 0.92


def test_splits_and_names_differ_and_sizes_are_independent(tmp_path: Path) -> None:
    def test_images(name: str, train: int) -> list[bytes]:
        sample.draw(name, dataset("idx", IDX_FILES, DIGITS, train=train), tmp_path / name)
        return [image.tobytes() for _, image, _ in of_split("test", idx.examples(tmp_path / name, DIGITS))]

    first = test_images("mnist", 40)
    assert test_images("mnist", 60) == first
    assert not set(first) & {
        image.tobytes() for _, image, _ in of_split("train", idx.examples(tmp_path / "mnist", DIGITS))
    }
    assert not set(first) & set(test_images("another", 40))


@pytest.mark.parametrize("classes", [2, 7, 30])
def test_any_number_of_classes_and_images(tmp_path: Path, classes: int) -> None:
    names = [f"class{number}" for number in range(classes)]
    for kind, files, form in (
        ("idx", IDX_FILES, idx),
        ("cifar", ["c.tar.gz"], cifar),
        ("image_folder", ["i.tgz"], image_folder),
    ):
        sample.draw("new", dataset(kind, files, names, train=31, test=10), tmp_path)
        for split, count in (("train", 31), ("test", 10)):
            labels = Counter(label for _, _, label in of_split(split, form.examples(tmp_path, names)))
            assert labels.total() == count
            assert max(labels.values()) - min(labels[label] for label in range(classes)) <= 1


def test_keras_loads_the_drawn_vgg16(drawn: Path) -> None:
    import keras

    model = keras.applications.VGG16(weights=drawn / "vgg16" / H5, include_top=False, input_shape=(32, 32, 3))
    with h5py.File(drawn / "vgg16" / H5) as file:
        for name in ("block1_conv1", "block5_conv3"):
            kernel, bias = model.get_layer(name).get_weights()
            np.testing.assert_array_equal(kernel, file[name][f"{name}_W_1:0"])
            assert not bias.any()
            assert kernel.std() == pytest.approx((2 / (9 * kernel.shape[2])) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        (
            "new",
            dataset("parquet", ["a"], DIGITS),
            "datasets.new: a sample of format parquet cannot be drawn; set source",
        ),
        ("resnet", WEIGHTS, "weights.resnet: a sample of these weights cannot be drawn; set source: published"),
        ("new", dataset("idx", ["a.gz"], DIGITS), "datasets.new.files: format idx has the files train-images-idx3"),
        ("new", dataset("cifar", ["a.zip"], DIGITS), "datasets.new.files: format cifar has the files NAME.tar.gz"),
        ("new", dataset("image_folder", ["a.tgz", "b.tgz"], FOLDERS), "format image_folder has the files a.tgz;"),
    ],
)
def test_what_cannot_be_drawn(tmp_path: Path, name: str, entry: Dataset | Weights, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        sample.draw(name, entry, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
