"""Read Caltech-101: a zip file with a tar.gz of JPEG files, 101_ObjectCategories/CLASS/name.jpg, and no splits."""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.data import split
from stages.data.formats._archive import (
    CORRUPT_ERRORS,
    DOWNLOAD_AGAIN,
    Bounded,
    open_tar,
    regular_files,
    single_file,
)
from stages.runtime.errors import UserError

INNER = "101_ObjectCategories.tar.gz"
TEST_FRACTION = 0.2  # chosen here: the archive has no splits, and papers chose their own at random


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, bytes, int]]:
    """Yield (split, key, image, label) in the order of the archive: image is the file's bytes, key "CLASS/name.jpg".

    A class is the name of its folder in lower case. A hash of the key decides on the split: see
    `stages.data.split.held_out`.

    Raises:
        UserError: the archive is corrupt, or a class folder is not in `classes`.
    """
    path = single_file(folder, "*.zip")
    labels = {name: label for label, name in enumerate(classes)}
    with _open(path) as archive:
        units = [(key, name) for _, key, name in _images(archive, path)]
    if unknown := sorted({name for _, name in units} - set(labels)):
        raise UserError(f"{path}: {unknown[0]!r} is not in classes in params.yaml; add it there")
    test = split.held_out(units, TEST_FRACTION)
    with _open(path) as archive:
        for member, key, name in _images(archive, path):
            file = archive.extractfile(member)
            yield "test" if key in test else "train", key, file.read() if file else b"", labels[name]


def _images(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """Yield each image, its key and its class; hidden files and files outside of class folders are left out."""
    for member in regular_files(archive, path):
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if len(parts) == 3 and parts[2].lower().endswith(".jpg") and not any(part.startswith(".") for part in parts):
            yield member, "/".join(parts[1:]), parts[1].lower()


@contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    """Open the archive inside the archive as a stream, with a limit on what it unpacks to."""
    try:
        with zipfile.ZipFile(path) as outer:
            names = [name for name in outer.namelist() if name.endswith("/" + INNER) and "__MACOSX" not in name]
            if len(names) != 1:
                raise UserError(f"{path}: it has {len(names)} files {INNER} instead of one; {DOWNLOAD_AGAIN}")
            with (
                outer.open(names[0]) as packed,
                gzip.open(packed) as stream,
                open_tar(Bounded(stream, path), "r|") as archive,
            ):
                yield archive
    except (*CORRUPT_ERRORS, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path}: corrupt: {' '.join(str(error).split())}; {DOWNLOAD_AGAIN}") from None
