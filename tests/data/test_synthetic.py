"""Synthetic data: the published formats, the same bytes each time, classes that are neither trivial nor impossible."""

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

from stages.config.datasets import DatasetConfig, MirrorConfig, SyntheticConfig, WeightsConfig
from stages.config.plugins import load_plugin
from stages.data.formats import cifar, idx, image_folder
from stages.data.synthetic import _archives as archives
from tests.conftest import of_split
from tests.data.archives import generate

ROOT = Path(__file__).parents[2]
MIRRORS = [MirrorConfig(url="file:///nowhere", hash="md5:" + "0" * 32)]
IDX_FILES = [f"{prefix}-{kind}-ubyte.gz" for prefix in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
DIGITS = [str(digit) for digit in range(10)]
FOLDERS = {f"n{number:08d}": f"thing {number}" for number in range(10)}
H5 = "vgg16_notop.h5"
GENERATED_SHA256 = "d591c069cf6a51eafc1a27aa5f161a16042939f79ef879c950de5dc8ef901835"
WEIGHTS = WeightsConfig(files={H5: MIRRORS}, synthetic=True)

# Run in other processes, so that they generate the same data as the tests
GENERATE_ALL = """
import sys
from pathlib import Path
from tests.data import test_synthetic
test_synthetic.generate_all(Path(sys.argv[1]))
"""


def dataset(
    kind: str, files: list[str], classes: list[str] | dict[str, str], train: int = 40, test: int = 20
) -> DatasetConfig:
    size = SyntheticConfig(train=train, test=test)
    return DatasetConfig(format=kind, classes=classes, synthetic=size, files=dict.fromkeys(files, MIRRORS))


def generate_all(folder: Path) -> None:
    generate("mnist", dataset("idx", IDX_FILES, DIGITS), folder / "mnist")
    generate("cifar10", dataset("cifar", ["c.tar.gz"], DIGITS), folder / "cifar10")
    generate("imagenette", dataset("image_folder", ["imagenette2-320.tgz"], FOLDERS), folder / "imagenette")
    generate("vgg16", WEIGHTS, folder / "vgg16")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate_all(folder)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_other_process_generates_the_same_bytes(generated: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "1", "TZ": "UTC1"}
    subprocess.run([sys.executable, "-c", GENERATE_ALL, tmp_path], cwd=ROOT, env=environment, check=True)
    assert hashes(tmp_path) == hashes(generated)


def test_archives_contain_no_date_and_no_owner(generated: Path) -> None:
    for path in generated.rglob("*gz"):
        assert path.read_bytes()[3:8] == bytes(5), path  # gzip: no flags, so no name; no time
    for path in (generated / "cifar10" / "c.tar.gz", generated / "imagenette" / "imagenette2-320.tgz"):
        with tarfile.open(path) as archive:
            assert {(member.mtime, member.uid, member.gid, member.mode) for member in archive} == {(0, 0, 0, 0o644)}


@pytest.mark.parametrize(("split", "prefix", "count"), [("train", "train", 40), ("test", "t10k", 20)])
def test_idx_reader_returns_the_generated_examples(generated: Path, split: str, prefix: str, count: int) -> None:
    images = gzip.decompress((generated / "mnist" / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((generated / "mnist" / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    assert struct.unpack(">IIII", images[:16]) == (2051, count, 28, 28)
    assert struct.unpack(">II", labels[:8]) == (2049, count)
    found = of_split(split, idx.examples(generated / "mnist", DIGITS))
    assert b"".join(image.tobytes() for _, image, _ in found) == images[16:]
    assert bytes(label for _, _, label in found) == labels[8:]
    assert found[0][1].shape == (28, 28, 1)
    assert Counter(labels[8:]) == Counter(list(range(10)) * (count // 10))


def test_cifar_reader_returns_the_generated_examples(generated: Path) -> None:
    with tarfile.open(generated / "cifar10" / "c.tar.gz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    top = "cifar-10-batches-bin"
    assert members[f"{top}/batches.meta.txt"].decode() == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n\n"
    train = b"".join(members[f"{top}/data_batch_{number}.bin"] for number in range(1, 6))
    for split, data, count in (("train", train, 40), ("test", members[f"{top}/test_batch.bin"], 20)):
        records = np.frombuffer(data, np.uint8).reshape(count, 3073)
        _, images, labels = zip(
            *sorted(of_split(split, cifar.examples(generated / "cifar10", DIGITS)), key=itemgetter(0)), strict=True
        )
        assert Counter(labels) == Counter(list(range(10)) * (count // 10))
        np.testing.assert_array_equal(labels, records[:, 0])
        for channel in range(3):
            plane = records[:, 1 + 1024 * channel : 1025 + 1024 * channel].reshape(count, 32, 32)
            np.testing.assert_array_equal(np.stack(images)[..., channel], plane)


def test_image_folder_reader_returns_the_generated_examples(generated: Path) -> None:
    with tarfile.open(generated / "imagenette" / "imagenette2-320.tgz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert members.pop("imagenette2-320/noisy_imagenette.csv")
    for split, split_folder, count in (("train", "train", 40), ("test", "val", 20)):
        found = of_split(split, image_folder.examples(generated / "imagenette", FOLDERS))
        start = f"imagenette2-320/{split_folder}/"
        expected = {name.removeprefix(start): data for name, data in members.items() if name.startswith(start)}
        assert {key: image for key, image, _ in found} == expected
        assert len(found) == count
        assert all(list(FOLDERS)[label] == key.split("/")[0] for key, _, label in found)
    photos = [Image.open(io.BytesIO(data)) for data in members.values()]
    assert {photo.format for photo in photos} == {"JPEG"}
    assert Counter(photo.mode for photo in photos)["L"] == 3
    assert all(64 <= min(photo.size) <= 160 for photo in photos)
    assert len({photo.size for photo in photos}) > 50


def test_four_of_ten_test_images_are_named_like_the_validation_split(tmp_path: Path) -> None:
    entry = dataset("image_folder", ["a.tgz"], FOLDERS, train=20, test=100)
    generate("imagenette", entry, tmp_path)
    not_in_pretraining = Counter(
        label
        for key, _, label in of_split("test", image_folder.examples(tmp_path, FOLDERS))
        if re.fullmatch(r"n\d+/ILSVRC2012_val_\d{8}\.JPEG", key)
    )
    assert not_in_pretraining == dict.fromkeys(range(10), 4)


@pytest.mark.parametrize("kind", ["idx", "cifar"])
def test_linear_model_learns_but_not_perfectly(tmp_path: Path, kind: str) -> None:
    from sklearn.linear_model import RidgeClassifier

    name, files, form = {"idx": ("mnist", IDX_FILES, idx), "cifar": ("cifar10", ["c.tar.gz"], cifar)}[kind]
    generate(name, dataset(kind, files, DIGITS, train=400, test=200), tmp_path)
    data = {}
    for split in ("train", "test"):
        _, images, labels = zip(*of_split(split, form.examples(tmp_path, DIGITS)), strict=True)
        data[split] = (np.stack(images).reshape(len(images), -1)[:, ::2] / 255, np.array(labels))
    model = RidgeClassifier(alpha=100).fit(*data["train"])
    assert 0.35 < model.score(*data["test"]) < 0.92


def test_splits_and_names_differ_and_sizes_are_independent(tmp_path: Path) -> None:
    def test_images(name: str, train: int) -> list[bytes]:
        generate(name, dataset("idx", IDX_FILES, DIGITS, train=train), tmp_path / name)
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
        generate("new", dataset(kind, files, names, train=31, test=10), tmp_path)
        for split, count in (("train", 31), ("test", 10)):
            labels = Counter(label for _, _, label in of_split(split, form.examples(tmp_path, names)))
            assert labels.total() == count
            assert max(labels.values()) - min(labels[label] for label in range(classes)) <= 1


def test_keras_loads_the_generated_vgg16(generated: Path) -> None:
    import keras

    model = keras.applications.VGG16(weights=generated / "vgg16" / H5, include_top=False, input_shape=(32, 32, 3))
    with h5py.File(generated / "vgg16" / H5) as file:
        for name in ("block1_conv1", "block5_conv3"):
            kernel, bias = model.get_layer(name).get_weights()
            np.testing.assert_array_equal(kernel, file[name][f"{name}_W_1:0"])
            assert not bias.any()
            assert kernel.std() == pytest.approx((2 / (9 * kernel.shape[2])) ** 0.5, rel=0.05)


def test_gzip_header_does_not_depend_on_the_python_version() -> None:
    """The gzip module of some versions writes another operating system: ff instead of 03."""
    data = b"synthetic" * 1000
    packed = archives.gzip_file(data)
    assert packed[:10] == bytes.fromhex("1f8b 08 00 00000000 02 03")
    assert gzip.decompress(packed) == data


def test_generated_images_do_not_change() -> None:
    """Other pixels would make every stage stale, on every machine."""
    files = load_plugin("data.synthetic", "idx").generate("mnist", dataset("idx", IDX_FILES, DIGITS))
    content = b"".join(gzip.decompress(data) for data in files.values())
    assert hashlib.sha256(content).hexdigest() == GENERATED_SHA256
