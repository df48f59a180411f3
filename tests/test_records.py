"""Records: what goes in comes out, in any process, and without this project."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import params, preprocess, records, sample
from stages.console import UserError
from tests.conftest import ROOT


def pixels(count: int, shape: tuple[int, ...], split: str = "train") -> list[records.Example]:
    rng = np.random.default_rng(len(split))
    return [(split, f"{i:05d}", rng.integers(0, 256, shape, np.uint8), i % 3) for i in range(count)]


def jpeg(height: int, width: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    ramp = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    Image.fromarray(ramp).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_pixels_come_back(project: Path, shape: tuple[int, ...]) -> None:
    written = {split: pixels(count, shape, split) for split, count in (("train", 30), ("test", 7))}
    mixed = [*written["train"][:10], *written["test"], *written["train"][10:]]
    records.write("drawn", ["a", "b", "c"], written, mixed)
    for split, examples in written.items():
        arrays = records.load("drawn", split)
        assert arrays.inputs.dtype == np.uint8
        found = {
            key: (image, label) for key, image, label in zip(arrays.keys, arrays.inputs, arrays.labels, strict=True)
        }
        assert len(found) == len(examples)
        for _, key, image, label in examples:
            assert np.array_equal(found[key][0], image)
            assert found[key][1] == label


def test_features_come_back(project: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 2, 2, 8)).astype(np.float16)
    records.write("features", ["a", "b"], ["train"], [("train", str(i), array, 0) for i, array in enumerate(features)])
    arrays = records.load("features", "train")
    assert arrays.inputs.dtype == np.float16
    for key, array in zip(arrays.keys, arrays.inputs, strict=True):
        assert np.array_equal(array, features[int(key)])


def test_jpegs_are_stored_as_they_are_and_cut_to_a_square(project: Path) -> None:
    import tensorflow_datasets as tfds

    files = {"wide": jpeg(20, 60), "high": jpeg(60, 20), "grey": jpeg(30, 30, "L")}
    records.write("photos", ["a"], ["train"], [("train", key, data, 0) for key, data in files.items()])
    with pytest.raises(UserError, match="its images differ in size; give the model an image_size"):
        records.load("photos", "train")
    arrays = records.load("photos", "train", image_size=10)
    assert arrays.inputs.shape == (3, 10, 10, 3)
    builder = tfds.builder_from_directory(records.RECORDS / "photos")
    raw = builder.as_dataset(split="train", decoders={"input": tfds.decode.SkipDecoding()})
    assert {example["key"].decode(): example["input"] for example in raw.as_numpy_iterator()} == files


def test_a_slice_of_the_end_is_what_is_not_in_the_rest(project: Path) -> None:
    records.write("drawn", ["a", "b", "c"], ["train"], pixels(50, (4, 4, 1)))
    rest, held_out = records.load("drawn", "train[:-10]"), records.load("drawn", "train[-10:]")
    assert [*rest.keys, *held_out.keys] == list(records.load("drawn", "train").keys)
    assert set(held_out.labels) == {0, 1, 2}
    assert list(rest.keys) != sorted(rest.keys)  # shuffled by the hash of the key


def test_two_processes_write_the_same_bytes(project: Path) -> None:
    """This one, and one with another order of Python's sets and of protobuf's maps: pixels, and files as they are."""
    names = ["mnist", "imagenette"]
    for name in names:
        sample.draw(name, params.load().datasets[name], Path("data/raw") / name)
        preprocess.preprocess(name)
    ours = hashes(Path("data/records"))
    shutil.rmtree("data/records")
    code = f"from stages import preprocess\nfor name in {names}: preprocess.preprocess(name)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert hashes(Path("data/records")) == ours
    assert len(ours) == 10  # of each a shard for each split, features, info and the names of the classes


def test_what_is_sorted_on_disk_is_the_same(project: Path) -> None:
    """Both splits at once, with no more open files than a process may often have."""
    code = """
import resource, sys
import numpy as np
from stages import records

random = np.random.default_rng(0)
images = random.integers(0, 256, (2500, 2, 2, 1), np.uint8)
splits = random.permutation(["train"] * 1500 + ["test"] * 1000).tolist()
examples = ((split, str(number), images[number], 0) for number, split in enumerate(splits))
if sys.argv[1] == "disk":
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    records.shuffle.MAX_MEM_BUFFER_SIZE = 0
records.write("drawn", ["a"], ["train", "test"], examples)
"""
    found = []
    for where in ("memory", "disk"):
        subprocess.run([sys.executable, "-c", code, where], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        found.append(hashes(Path("data/records")))
    assert found[0] == found[1] and len(found[0]) == 5


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_failure_leaves_nothing_and_keeps_what_was_there(project: Path) -> None:
    records.write("drawn", ["a", "b", "c"], ["train"], pixels(5, (4, 4, 1)))
    before = sorted((path.name, path.read_bytes()) for path in Path("data/records/drawn").iterdir())
    with pytest.raises(UserError, match="drawn: split 'test' has no images"):
        records.write("drawn", ["a", "b", "c"], ["train", "test"], pixels(9, (4, 4, 1)))
    with pytest.raises(UserError, match="drawn: split 'train' holds two images named '00000'"):
        records.write("drawn", ["a", "b", "c"], ["train"], pixels(5, (4, 4, 1)) * 2)
    assert sorted((path.name, path.read_bytes()) for path in Path("data/records/drawn").iterdir()) == before
    assert [path.name for path in Path("data/records").iterdir()] == ["drawn"]


def test_missing_records_are_one_line(project: Path) -> None:
    with pytest.raises(UserError, match="data/records/nothing: no records; run `dvc repro`"):
        records.info("nothing")


def damaged(shard: bytes, how: str) -> bytes:
    """What may become of a shard of 30 records of the same length."""
    record = len(shard) // 30
    flipped = bytearray(shard)
    flipped[len(shard) // 2] ^= 1
    return {
        "empty": b"",
        "half": shard[: len(shard) // 2],
        "without its last bytes": shard[:-3],
        "without its last record": shard[:-record],
        "without its first record": shard[record:],
        "with a record twice": shard + shard[:record],
        "with another bit": bytes(flipped),
        "with another bit in its first length": b"\1" + shard[1:],
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "empty",
        "half",
        "without its last bytes",
        "without its last record",
        "without its first record",
        "with a record twice",
        "with another bit",
        "with another bit in its first length",
    ],
)
def test_a_damaged_shard_is_named(project: Path, how: str) -> None:
    features = [("train", f"{i:02d}", np.full((4, 4, 8), i, np.float16), i % 3) for i in range(30)]
    records.write("drawn", ["a", "b", "c"], ["train"], features)
    (shard,) = Path("data/records/drawn").glob("*-train.*")
    if how == "missing":
        shard.unlink()
    else:
        shard.write_bytes(damaged(shard.read_bytes(), how))
    with pytest.raises(UserError, match=r"^data/records/drawn: damaged: split 'train.*dvc repro --force") as caught:
        records.load("drawn", "train[:20]")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("text", [b"", b"{}", b"\xff\x00", b'{"a'])
def test_damaged_metadata_is_named(project: Path, file: str, text: bytes) -> None:
    records.write("drawn", ["a", "b", "c"], ["train"], pixels(30, (4, 4, 1)))
    (Path("data/records/drawn") / file).write_bytes(text)
    with pytest.raises(UserError, match=r"^data/records/drawn: damaged: ") as caught:
        records.load("drawn", "train")
    assert str(caught.value).isprintable()


def test_an_image_that_tensorflow_cannot_decode_is_named(project: Path) -> None:
    """What opens, has its end, and yet is none."""
    bad = bytearray(jpeg(40, 40))
    bad[bad.index(b"\xff\xc4") + 6] ^= 0xFF  # of a Huffman table
    files = {"good": jpeg(9, 9), "n1/bad.JPEG": bytes(bad)}
    records.write("photos", ["a"], ["train"], [("train", key, data, 0) for key, data in files.items()])
    with pytest.raises(UserError, match=r"^data/records/photos: 'n1/bad.JPEG' cannot be decoded; .*skip_bad_images"):
        records.load("photos", "train", image_size=8)
