"""The entries of docs/datasets.md, and the readers of CIFAR-100 and Caltech-101."""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages import preprocess
from stages.config.datasets import DatasetConfig
from stages.data import reader
from stages.data.formats import caltech101, cifar100
from stages.runtime.errors import UserError
from tests.conftest import ROOT, of_split, write_params
from tests.data.archives import generate

BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENTRIES = {
    name: entry
    for block in BLOCK.findall((ROOT / "docs/datasets.md").read_text(encoding="utf-8"))
    for name, entry in YAML(typ="safe").load(block)["datasets"].items()
}


def entry(name: str, **changes: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(ENTRIES[name] | changes)


@pytest.mark.parametrize("name", ENTRIES)
def test_documented_entry_becomes_records(project: Path, name: str) -> None:
    write_params(project, lambda values: values["datasets"].update({name: ENTRIES[name]}))
    generate(name)
    preprocess.preprocess(name)
    classes = entry(name).class_names
    assert reader.info(name).features["label"].names == classes
    counts = json.loads(Path(f"data/counts/{name}.json").read_text(encoding="utf-8"))
    size = entry(name).synthetic
    assert size and sum(map(sum, (split.values() for split in counts.values()))) == size.train + size.test
    assert all(counts[split][label] for split in counts for label in classes)


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_cifar100_classes_choose_the_labels(tmp_path: Path, labels: str) -> None:
    names = {kind: [f"{kind} {label}" for label in range(count)] for kind, count in (("coarse", 20), ("fine", 100))}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3072), np.uint8)
    records = [(3, 17), (19, 99), (0, 0)]  # coarse, fine
    members = {f"{kind}_label_names.txt": "\n".join(found).encode() for kind, found in names.items()}
    for split, images in zip(("train", "test"), pixels, strict=True):
        members[f"{split}.bin"] = b"".join(
            bytes(pair) + image.tobytes() for pair, image in zip(records, images, strict=True)
        )
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    examples = list(cifar100.examples(tmp_path, names[labels]))
    for split, images in zip(("train", "test"), pixels, strict=True):
        for (key, image, label), pair, expected, index in zip(
            of_split(split, examples), records, images, range(3), strict=True
        ):
            assert (key, label) == (f"{index:05d}", pair[labels == "fine"])
            assert np.array_equal(image.transpose(2, 0, 1).ravel(), expected)
    with pytest.raises(UserError, match=r"neither the 20 of coarse_label_names\.txt nor the 100 of fine_label"):
        list(cifar100.examples(tmp_path, names[labels][::-1]))


def test_cifar100_truncated_batch_is_named(tmp_path: Path) -> None:
    generate("cifar100", entry("cifar100"), tmp_path)
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data) - name.endswith("test.bin")
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(UserError, match=r"test.bin is truncated: its last record has 3073 of 3074 bytes; get it again"):
        list(cifar100.examples(tmp_path, entry("cifar100").classes))


def test_caltech101_split_has_every_class_and_follows_from_names(tmp_path: Path) -> None:
    generate("caltech101", entry("caltech101"), tmp_path)
    classes = entry("caltech101").classes
    examples = list(caltech101.examples(tmp_path, classes))
    splits = {key: split for split, key, _, _ in examples}
    assert len(splits) == 510
    assert {(split, label) for split, _, _, label in examples} == {
        (split, label) for split in ("train", "test") for label in range(102)
    }
    assert all(list(classes)[label] == key.partition("/")[0].lower() for _, key, _, label in examples)
    with pytest.raises(UserError, match=r"caltech-101\.zip: 'accordion' is not in classes"):
        list(caltech101.examples(tmp_path, list(classes)[1:]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "corrupt: File is not a zip file; get it again"),
        ({}, "it has 0 files 101_ObjectCategories.tar.gz instead of one"),
        ({"c/101_ObjectCategories.tar.gz": b"text"}, "corrupt: Not a gzipped file"),
        ({"c/101_ObjectCategories.tar.gz": b"\x1f\x8b\x08"}, "corrupt: Compressed file ended"),
    ],
)
def test_caltech101_corrupt_archive_is_named(tmp_path: Path, content: dict[str, bytes] | None, message: str) -> None:
    path = tmp_path / "caltech-101.zip"
    if content is None:
        path.write_bytes(b"text")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        list(caltech101.examples(tmp_path, ["a", "b"]))
