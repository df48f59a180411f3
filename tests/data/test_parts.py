"""Records that do not fit into memory while they are sorted have the same bytes; errors leave what was there."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.utils import shard_utils

from stages.data import writer
from stages.data.examples import Checked, Example
from stages.data.writer import write_checked
from stages.runtime.errors import UserError

CLASSES = ["a", "b"]
SOURCE = Path("raw")


def checked(examples: list[Example], invalid: tuple[str, ...] = ()) -> Iterator[Checked]:
    return ((example, "is corrupt" if example[1] in invalid else "") for example in examples)


def images(count: int, kind: str) -> list[Example]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 5, 4, 3), np.uint8)
    return [
        ("test" if i % 3 == 2 else "train", f"{i:03d}", image if kind == "pixels" else image.tobytes(), i % 2)
        for i, image in enumerate(pixels)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["pixels", "files"])
def test_records_sorted_on_disk_and_in_another_order_have_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", 2000)
    found, invalid = images(200, kind), ("007", "100", "199")
    write_checked("images", CLASSES, checked(found, invalid), SOURCE, True)
    folders = [Path("data/records/images"), Path("data/counts"), Path("data/skipped")]
    expected = [contents(folder) for folder in folders]
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
    write_checked("images", CLASSES, checked(found[100:] + found[:100], invalid), SOURCE, True)
    assert contents(folders[0]) == expected[0]
    assert contents(folders[1]) == expected[1]
    assert len([name for name in expected[0] if "-train.tfrecord-" in name]) > 4


def test_errors_name_the_split_and_the_image(project: Path) -> None:
    def error_of(examples: list[Example], invalid: tuple[str, ...] = ()) -> str:
        with pytest.raises(UserError) as caught:
            write_checked("images", CLASSES, checked(examples, invalid), SOURCE, False)
        assert not Path("data").exists() or not list(Path("data/records").iterdir())
        return str(caught.value)

    found = images(9, "files")
    assert error_of(found + found[4:5]) == "images: split 'train' has two images named '004'; rename one"
    assert error_of([e for e in found if e[0] == "train"]) == "images: split 'test' has no images; check raw"
    assert error_of([e for e in found if e[3] == 0]).startswith("raw: class 'b' has no training images; ")
    assert error_of(found, invalid=("006",)).startswith("raw: train: '006' is corrupt; remove it, or ")
    assert error_of([]) == "images: there are no images; check the archive"
    writer.write("images", CLASSES, ["train"], found[:1])  # another dataset under this name stays as it is
    before = contents(Path("data/records/images"))
    with pytest.raises(UserError):
        write_checked("images", CLASSES, checked(found, ("000",)), SOURCE, False)
    assert contents(Path("data/records/images")) == before
