"""The entries of docs/datasets.md, and the labels of CIFAR-100."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages import preprocess
from stages.config.datasets import DatasetConfig
from stages.data import reader
from stages.data.formats import cifar
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


@pytest.mark.parametrize("name", [name for name, values in ENTRIES.items() if "synthetic" in values])
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
    examples = list(cifar.examples(tmp_path, names[labels]))
    for split, images in zip(("train", "test"), pixels, strict=True):
        for (key, image, label), pair, expected, index in zip(
            of_split(split, examples), records, images, range(3), strict=True
        ):
            assert (key, label) == (f"{index:05d}", pair[labels == "fine"])
            assert np.array_equal(image.transpose(2, 0, 1).ravel(), expected)
    with pytest.raises(UserError, match=r"not the lines of coarse_label_names\.txt or fine_label"):
        list(cifar.examples(tmp_path, names[labels][::-1]))
