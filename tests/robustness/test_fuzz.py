"""The corpus of `make fuzz`, with everything it has found: each input gives examples or a `UserError`."""

from pathlib import Path

import pytest

from stages.data.formats import cifar, idx, image_folder
from tests.robustness import fuzz


@pytest.mark.parametrize("file", sorted(fuzz.CORPUS.iterdir()), ids=lambda file: file.name)
def test_corpus_input_is_read_or_rejected(tmp_path: Path, file: Path) -> None:
    fuzz.read(file.read_bytes(), tmp_path)


def test_corpus_seed_contains_examples(tmp_path: Path) -> None:
    """A fuzzer finds little if it starts from inputs that are rejected at once."""
    readers = {"idx": (idx, 3), "cifar": (cifar, 2), "folder": (image_folder, 3)}
    for file in (
        "idx",
        "cifar",
        "folder",
        "idx_packed",
        "cifar_packed",
        "folder_packed",
    ):
        fuzz.read((fuzz.CORPUS / file).read_bytes(), tmp_path)
        reader, images = readers[file.removesuffix("_packed")]
        classes = list(fuzz.CLASSES) if reader is cifar else fuzz.CLASSES
        assert len(list(reader.examples(tmp_path, classes))) == images, file
