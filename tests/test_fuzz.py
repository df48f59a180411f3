"""The inputs that `make fuzz` starts from, and what it ever found: bytes in, examples or a UserError out."""

from pathlib import Path

import pytest

from stages.formats import cifar, idx, image_folder
from tools import fuzz


@pytest.mark.parametrize("file", sorted(fuzz.CORPUS.iterdir()), ids=lambda file: file.name)
def test_an_input_is_read_or_refused(tmp_path: Path, file: Path) -> None:
    fuzz.read(file.read_bytes(), tmp_path)


def test_the_corpus_gets_past_the_headers(tmp_path: Path) -> None:
    """A fuzzer finds little that begins with what is refused at once."""
    readers = {"idx": (idx, 3), "cifar": (cifar, 2), "folder": (image_folder, 3)}
    for file in ("idx", "cifar", "folder", "idx_packed", "cifar_packed", "folder_packed"):
        fuzz.read((fuzz.CORPUS / file).read_bytes(), tmp_path)
        reader, images = readers[file.removesuffix("_packed")]
        classes = list(fuzz.CLASSES) if reader is cifar else fuzz.CLASSES
        assert len(list(reader.examples(tmp_path, classes))) == images, file
