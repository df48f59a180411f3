"""Readers of archive formats: what they read from archives packed by hand, and their errors for invalid ones."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from stages.data.formats import cifar, idx, image_folder
from stages.runtime.errors import UserError
from tests.conftest import of_split

CLASSES = ["cat", "dog", "bird"]
FOLDERS = {"n1": "cat", "n2": "dog"}
Members = dict[str, bytes | tarfile.TarInfo]


def pack_idx(folder: Path, images: bytes, labels: bytes, prefix: str = "train") -> None:
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def pack_tar(path: Path, members: Members, mode: Literal["w:gz", "w:"] = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def error_of(read: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        read()
    assert "\n" not in str(raised.value)
    return str(raised.value)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
IMAGES = struct.pack(">IIII", 2051, 4, 28, 28) + PIXELS.tobytes()
LABELS = struct.pack(">II", 2049, 4) + bytes([2, 0, 1, 0])


def test_idx_yields_the_packed_examples(tmp_path: Path) -> None:
    pack_idx(tmp_path, IMAGES, LABELS)
    pack_idx(tmp_path, struct.pack(">IIII", 2051, 1, 28, 28) + PIXELS[2].tobytes(), LABELS[:7] + b"\1\1", "t10k")
    splits, keys, images, labels = zip(*idx.examples(tmp_path, CLASSES), strict=True)
    assert splits == ("train",) * 4 + ("test",)
    assert keys == ("00000", "00001", "00002", "00003", "00000")
    assert labels == (2, 0, 1, 0, 1)
    np.testing.assert_array_equal(np.stack(images), np.concatenate([PIXELS, PIXELS[2:3]])[..., None])


def test_idx_invalid_test_split_is_named(tmp_path: Path) -> None:
    pack_idx(tmp_path, IMAGES, LABELS)
    assert "t10k-images-idx3-ubyte.gz: missing" in error_of(lambda: list(idx.examples(tmp_path, CLASSES)))
    pack_idx(tmp_path, IMAGES, LABELS[:-1], "t10k")
    assert "t10k-labels-idx1-ubyte.gz: truncated" in error_of(lambda: list(idx.examples(tmp_path, CLASSES)))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (LABELS, LABELS, "train-images-idx3-ubyte.gz: magic number 2049 instead of 2051"),
        (IMAGES, IMAGES, "train-labels-idx1-ubyte.gz: magic number 2051 instead of 2049"),
        (IMAGES, struct.pack(">II", 2049, 3) + bytes(3), "train-labels-idx1-ubyte.gz: 3 labels for 4 images"),
        (IMAGES[:-1], LABELS, "train-images-idx3-ubyte.gz: truncated"),
        (IMAGES[:10], LABELS, "train-images-idx3-ubyte.gz: truncated"),
        (b"", LABELS, "train-images-idx3-ubyte.gz: truncated"),
        (IMAGES, LABELS[:-1], "train-labels-idx1-ubyte.gz: truncated"),
        (IMAGES + b"x", LABELS, "train-images-idx3-ubyte.gz: it has more examples"),
        (IMAGES, LABELS + b"x", "train-labels-idx1-ubyte.gz: it has more examples"),
        (struct.pack(">IIII", 2051, 4, 2**31, 2**31), LABELS, "train-images-idx3-ubyte.gz: truncated"),
    ],
)
def test_idx_invalid_file_is_named(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    pack_idx(tmp_path, images, labels)
    assert message in error_of(lambda: list(idx.examples(tmp_path, CLASSES)))


def corrupt(data: bytes, how: str) -> bytes:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    wrong_sum = bytearray(data)
    wrong_sum[-8] ^= 0xFF  # of gzip's checksum
    return {"cut": data[: len(data) // 2], "flipped": bytes(flipped), "sum": bytes(wrong_sum), "other": b"<html>"}[how]


@pytest.mark.parametrize("how", ["cut", "flipped", "sum", "other"])
def test_corrupt_gzip_is_named_in_every_format(tmp_path: Path, how: str) -> None:
    pack_idx(tmp_path, IMAGES, LABELS)
    pack_tar(tmp_path / "c.tar.gz", cifar_members())
    pack_tar(tmp_path / "i.tgz", folder_members())
    for file, read in [
        ("train-images-idx3-ubyte.gz", lambda: list(idx.examples(tmp_path, CLASSES))),
        ("c.tar.gz", lambda: list(cifar.examples(tmp_path, CLASSES))),
        ("i.tgz", lambda: list(image_folder.examples(tmp_path, FOLDERS))),
    ]:
        path = tmp_path / file
        path.write_bytes(corrupt(path.read_bytes(), how))
        assert f"{path}: corrupt" in error_of(read)


def test_folder_in_place_of_an_archive_is_named(tmp_path: Path) -> None:
    pack_idx(tmp_path, IMAGES, LABELS)
    readers: dict[str, Callable[[], object]] = {
        "train-labels-idx1-ubyte.gz": lambda: list(idx.examples(tmp_path, CLASSES)),
        "c.tar.gz": lambda: list(cifar.examples(tmp_path, CLASSES)),
        "i.tgz": lambda: list(image_folder.examples(tmp_path, FOLDERS)),
    }
    for file, read in readers.items():
        path = tmp_path / file
        path.unlink(missing_ok=True)
        path.mkdir()
        with pytest.raises(IsADirectoryError) as caught:  # the command line makes one line of it
            read()
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("how", ["cut", "sum", "other"])
def test_corrupt_labels_are_named_instead_of_the_images(tmp_path: Path, how: str) -> None:
    pack_idx(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(corrupt(path.read_bytes(), how))
    assert f"{path}: corrupt" in error_of(lambda: list(idx.examples(tmp_path, CLASSES)))


def test_missing_archives_are_named(tmp_path: Path) -> None:
    assert "train-images-idx3-ubyte.gz: missing" in error_of(lambda: list(idx.examples(tmp_path, CLASSES)))
    assert "0 files match *.tar.gz" in error_of(lambda: list(cifar.examples(tmp_path, CLASSES)))
    for name in ("a.tgz", "b.tgz"):
        pack_tar(tmp_path / name, folder_members())
    assert "2 files match *.tgz" in error_of(lambda: list(image_folder.examples(tmp_path, FOLDERS)))


CHANNELS = np.random.default_rng(1).integers(0, 256, (7, 3, 32, 32), np.uint8)
RECORDS = [bytes([number % 3]) + image.tobytes() for number, image in enumerate(CHANNELS)]
TOP = "cifar-10-batches-bin"


def cifar_members(**changed: bytes | None) -> Members:
    """Batches of one record each, not in order; `changed` replaces a file, or removes it."""
    files: dict[str, bytes | None] = {f"data_batch_{n}": RECORDS[n - 1] for n in (5, 2, 1, 3, 4)}
    files |= {"batches.meta": "\n".join([*CLASSES, "", ""]).encode(), "test_batch": RECORDS[5] + RECORDS[6]}
    files |= changed
    suffix = {"batches.meta": "txt"}
    return {f"{TOP}/{name}.{suffix.get(name, 'bin')}": data for name, data in files.items() if data is not None}


def test_cifar_key_is_the_index_by_batch_whatever_the_order_of_the_archive(tmp_path: Path) -> None:
    pack_tar(tmp_path / "c.tar.gz", cifar_members() | {f"{TOP}/readme.html": b"<html>"})
    for split, numbers in (("train", range(5)), ("test", (5, 6))):
        keys, images, labels = zip(
            *sorted(of_split(split, cifar.examples(tmp_path, CLASSES)), key=itemgetter(0)), strict=True
        )
        assert keys == tuple(f"{index:05d}" for index in range(len(numbers)))
        assert labels == tuple(number % 3 for number in numbers)
        for image, number in zip(images, numbers, strict=True):
            red, green, blue = CHANNELS[number]
            np.testing.assert_array_equal(image, np.dstack([red, green, blue]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batches.meta": None}, "batches.meta.txt is missing"),
        ({"batches.meta": b"cat\nfox\nbird\n"}, "classes in params.yaml are not the lines of batches.meta.txt"),
        ({"batches.meta": b"cat\ndog\n"}, "classes in params.yaml are not the lines of batches.meta.txt"),
        ({"data_batch_2": RECORDS[0][:-1]}, "data_batch_2.bin is truncated: its last record has 3072 of 3073 bytes"),
        ({"data_batch_2": None}, "data_batch_2.bin is missing"),
        ({f"data_batch_{n}": None for n in range(1, 6)}, "data_batch_1.bin is missing"),
        ({"test_batch": None}, "test_batch.bin is missing"),
        ({"test_batch": RECORDS[0] + b"x"}, "test_batch.bin is truncated: its last record has 1 of 3073 bytes"),
    ],
)
def test_cifar_invalid_batch_is_named(tmp_path: Path, changed: dict[str, bytes | None], message: str) -> None:
    pack_tar(tmp_path / "c.tar.gz", cifar_members(**changed))
    assert message in error_of(lambda: list(cifar.examples(tmp_path, CLASSES)))


def jpeg(content: str) -> bytes:
    """The reader passes the bytes through; stages.preprocess checks the image."""
    return b"\xff\xd8\xff" + content.encode()


def folder_members() -> Members:
    return {
        "top/noisy.csv": b"path,label\n",
        "top/train/n2/n2_1.JPEG": jpeg("dog"),
        "top/train/n1/n1_1.JPEG": jpeg("cat"),
        "top/train/n1/._n1_1.JPEG": b"macOS metadata",
        "top/train/.DS_Store": b"macOS metadata",
        "top/val/n1/ILSVRC2012_val_00000293.JPEG": jpeg("test cat"),
    }


def test_image_folder_passes_bytes_through(tmp_path: Path) -> None:
    pack_tar(tmp_path / "i.tgz", folder_members())
    assert list(image_folder.examples(tmp_path, FOLDERS)) == [
        ("train", "n2/n2_1.JPEG", jpeg("dog"), 1),
        ("train", "n1/n1_1.JPEG", jpeg("cat"), 0),
        ("test", "n1/ILSVRC2012_val_00000293.JPEG", jpeg("test cat"), 0),
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"top/train/n3/a.JPEG": jpeg("")}, "'top/train/n3/a.JPEG': 'n3' is not in classes"),
    ],
)
def test_image_folder_with_unknown_class_is_named(tmp_path: Path, members: Members, message: str) -> None:
    pack_tar(tmp_path / "i.tgz", folder_members() | members)
    assert message in error_of(lambda: list(image_folder.examples(tmp_path, FOLDERS)))


@pytest.mark.parametrize(("there", "missing"), [("train", "val"), ("val", "train")])
def test_image_folder_without_images_of_a_split_is_an_error(tmp_path: Path, there: str, missing: str) -> None:
    pack_tar(tmp_path / "i.tgz", {f"top/{there}/n1/a.JPEG": jpeg("")})
    assert f"it has no file TOP/{missing}/CLASS/NAME" in error_of(
        lambda: list(image_folder.examples(tmp_path, FOLDERS))
    )
