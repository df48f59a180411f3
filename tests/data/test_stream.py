"""A split in a file: the same examples as in memory, in any order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core.utils import shard_utils

from stages.data import reader, writer
from stages.runtime.errors import UserError
from tests.data.test_reader import jpeg, pixels


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards for each split, as large datasets have."""
    monkeypatch.setattr(shard_utils.ShardConfig, "get_number_shards", lambda self, *args, **named: 3)


def write(kind: str) -> int | None:
    """Write 40 training examples; return the image_size that they are read with."""
    examples: list[Any] = pixels(40, (6, 5, 3))
    if kind == "features":
        examples = [(*rest, array.astype(np.float16) / 7, label) for *rest, array, label in examples]
    elif kind == "photos":
        examples = [("train", f"{i:02d}", jpeg(20 + i, 60 - i), i % 3) for i in range(40)]
    writer.write("some", ["a", "b", "c"], ["train"], examples)
    return 9 if kind == "photos" else None


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize("kind", ["pixels", "features", "photos"])
def test_any_order_of_a_split_on_disk_has_the_examples_of_the_split_in_memory(project: Path, kind: str) -> None:
    image_size = write(kind)
    assert len(list(Path("data/records/some").glob("*-train.tfrecord-*"))) == 3
    for split in ("train[:-15]", "train[-15:]"):
        memory, disk = reader.load("some", split, image_size, 1), reader.load("some", split, image_size, 0)
        assert not isinstance(memory.inputs, np.memmap) and isinstance(disk.inputs, np.memmap)
        for field in ("keys", "inputs", "labels"):
            assert np.array_equal(getattr(disk, field), getattr(memory, field))
        batches = np.random.default_rng(0).permutation(len(memory))[:12].reshape(3, 4)
        inputs, labels, positions = disk.rows(batches)
        assert np.array_equal(inputs.numpy()[positions], memory.inputs[batches])
        assert np.array_equal(labels.numpy()[positions], memory.labels[batches])
    assert not list(Path(".dvc/tmp/decoded").iterdir())  # it has no name: a killed process leaves none


def test_split_in_memory_is_not_copied_for_tensorflow(project: Path) -> None:
    write("pixels")
    split = reader.load("some", "train")
    split.inputs[7] = 201
    assert (split.rows(np.arange(8).reshape(2, 4)).inputs[7].numpy() == 201).all()
    split.inputs[7] = 99
    assert (split.rows(np.arange(8).reshape(2, 4)).inputs[7].numpy() == 99).all()


def test_image_that_cannot_be_decoded_is_named_when_it_is_read_to_disk(project: Path) -> None:
    bad = bytearray(jpeg(40, 40))
    bad[bad.index(b"\xff\xc4") + 6] ^= 0xFF  # in a Huffman table
    writer.write(
        "photos", ["a"], ["train"], [("train", "good", jpeg(9, 9), 0), ("train", "n1/bad.JPEG", bytes(bad), 0)]
    )
    with pytest.raises(UserError, match=r"^data/records/photos: 'n1/bad.JPEG' cannot be decoded"):
        reader.load("photos", "train", 8, 0)
