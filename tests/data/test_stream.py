"""A streamed split: the same examples as in memory, in any order, with bounded memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core.utils import shard_utils

from stages.data import index, reader, stream, writer
from stages.data.arrays import SplitArrays
from stages.data.stream import StreamedSplit, open_split
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
@pytest.mark.parametrize("disk_share", [0.5, 0.0])
def test_any_order_of_a_streamed_split_has_the_examples_of_the_split_in_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, disk_share: float
) -> None:
    """With and without room for the temporary file, at the first and at the second time."""
    monkeypatch.setattr(stream, "DISK_SHARE", disk_share)
    image_size = write(kind)
    assert len(list(Path("data/records/some").glob("*-train.tfrecord-*"))) == 3
    for split in ("train[:-15]", "train[-15:]"):
        memory, streamed = open_split("some", split, image_size, 1), open_split("some", split, image_size, 0)
        assert isinstance(memory, SplitArrays) and isinstance(streamed, StreamedSplit)
        assert (len(streamed), streamed.inputs.shape) == (len(memory), memory.inputs.shape)
        assert streamed.inputs.dtype == memory.inputs.dtype
        assert np.array_equal(streamed.labels, memory.labels)
        assert np.array_equal(streamed.inputs[3:8], memory.inputs[3:8])
        for seed in range(2):
            batches = np.random.default_rng(seed).permutation(len(memory))[:12].reshape(3, 4)
            inputs, labels, positions = streamed.rows(batches)
            assert np.array_equal(inputs.numpy()[positions], memory.inputs[batches])
            assert np.array_equal(labels.numpy()[positions], memory.labels[batches])
    assert not list(Path(".dvc/tmp/decoded").iterdir())  # it has no name: a killed process leaves none


def test_only_the_columns_that_a_process_needs_are_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("pixels")
    memory, streamed = reader.load("some", "train"), StreamedSplit("some", "train", None)
    decoded: list[np.ndarray] = []
    decode = streamed._decode

    def spy(indices: np.ndarray) -> Any:
        decoded.append(indices)
        return decode(indices)

    monkeypatch.setattr(streamed, "_decode", spy)
    batches = np.arange(40)[::-1].reshape(10, 4)
    for own in (batches[:5], batches):
        inputs, labels, positions = streamed.rows(own)
        assert np.array_equal(inputs.numpy()[positions], memory.inputs[own])
        assert np.array_equal(labels.numpy()[positions], memory.labels[own])
    # Each once: the second time it is kept
    assert sorted(np.concatenate(decoded)) == sorted(batches.ravel())


def test_split_in_memory_is_not_copied_for_tensorflow(project: Path) -> None:
    write("pixels")
    split = reader.load("some", "train")
    split.inputs[7] = 201
    assert (split.rows(np.arange(8).reshape(2, 4)).inputs[7].numpy() == 201).all()
    split.inputs[7] = 99
    assert (split.rows(np.arange(8).reshape(2, 4)).inputs[7].numpy() == 99).all()


def test_image_that_cannot_be_decoded_is_named_when_it_is_streamed(project: Path) -> None:
    bad = bytearray(jpeg(40, 40))
    bad[bad.index(b"\xff\xc4") + 6] ^= 0xFF  # in a Huffman table
    writer.write(
        "photos", ["a"], ["train"], [("train", "good", jpeg(9, 9), 0), ("train", "n1/bad.JPEG", bytes(bad), 0)]
    )
    with pytest.raises(UserError, match=r"^data/records/photos: 'n1/bad.JPEG' cannot be decoded"):
        open_split("photos", "train", 8, 0).rows(np.arange(2)[None])


def test_index_of_a_file_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_bytes((5).to_bytes(8, "little") + bytes(4 + 5 + 4))
    assert index.offsets(tmp_path / "a.tfrecord", 1).tolist() == [0]
    with pytest.raises(ValueError, match=r"record 1 of a\.tfrecord"):
        index.offsets(tmp_path / "a.tfrecord", 2)
