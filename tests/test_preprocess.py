"""Archives as drawn, records as read: the same images, and a table that counts them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stages import params, preprocess, records, sample
from stages.formats import cifar, idx


@pytest.mark.parametrize(("name", "reader"), [("fashion_mnist", idx.examples), ("cifar10", cifar.examples)])
def test_every_image_arrives(project: Path, name: str, reader: preprocess.Reader) -> None:
    dataset = params.load().datasets[name]
    sample.draw(name, dataset, Path("data/raw") / name)
    preprocess.preprocess(name)
    assert records.info(name).features["label"].names == dataset.class_names
    table = json.loads((Path("data/counts") / f"{name}.json").read_text())
    for split, size in {"train": 40, "test": 20}.items():
        arrays = records.load(name, split)
        found = dict(zip(arrays.keys, zip(arrays.inputs, arrays.labels, strict=True), strict=True))
        examples = list(reader(Path("data/raw") / name, split, dataset.classes))
        assert len(found) == len(examples) == size
        for key, image, label in examples:
            assert np.array_equal(found[key][0], image)
            assert found[key][1] == label
        counts = Counter(dataset.class_names[label] for _, _, label in examples)
        assert table[split] == {label: counts[label] for label in dataset.class_names}
