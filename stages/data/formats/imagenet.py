"""Read ImageNet-1k as published: a tar with a tar of JPEG files for each class, and a tar of validation images.

The validation images lie in one folder; a text file names the class of each, in the order of the numbers of the images.
The development kit has numbers instead, which only a MATLAB file beside them translates into the names of classes.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from stages.data.examples import Example
from stages.data.formats._archive import (
    DOWNLOAD_AGAIN,
    MAX_HEADER,
    name_file_in_errors,
    open_tar,
    regular_files,
    single_file,
)
from stages.runtime.errors import UserError

NUMBER = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[Example]:
    """Yield (split, key, image, label) in the order of the archives: image is the file's bytes, key "CLASS/name.JPEG".

    The published validation split is our test split. Nothing is unpacked to disk. The images are not checked here.

    Raises:
        UserError: an archive is corrupt, a class or an image is missing, or a class is not in `classes`.
    """
    labels = {name: label for label, name in enumerate(classes)}
    train, validation = single_file(folder, "*train*.tar"), single_file(folder, "*val*.tar")
    classes_of_validation = _read_classes(single_file(folder, "*.txt"), labels)
    yield from _training_images(train, labels)
    yield from _validation_images(validation, classes_of_validation, labels)


def _training_images(path: Path, labels: dict[str, int]) -> Iterator[Example]:
    """Yield the images of an archive with an archive for each class."""
    absent = set(labels)
    with name_file_in_errors(path), tarfile.open(path, "r:", tarinfo=_ClassArchive) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every member in memory
            if not (member.isreg() and member.name.endswith(".tar")):
                continue
            name = PurePosixPath(member.name).stem
            if name not in labels:
                raise UserError(f"{path}: class {name[:200]!r} is not in classes in params.yaml; add it there")
            absent.discard(name)
            for image_name, image in _images(archive.extractfile(member), path):
                yield "train", f"{name}/{image_name}", image, labels[name]
    if absent:  # tarfile takes a corrupt header for the end of an archive
        raise UserError(f"{path}: {min(absent)}.tar is missing or corrupt; {DOWNLOAD_AGAIN}")


def _validation_images(path: Path, classes: list[str], labels: dict[str, int]) -> Iterator[Example]:
    """Yield the images of a tar of images. `classes` has the class of each, in the order of numbers."""
    absent = set(range(1, len(classes) + 1))
    with name_file_in_errors(path), path.open("rb") as file:
        for image_name, image in _images(file, path):
            number = int(found[1]) if (found := NUMBER.fullmatch(image_name)) else 0
            if number not in absent:
                raise UserError(
                    f"{path}: {image_name[:200]!r} occurs twice, or is not the name of one of {len(classes):,} images "
                    f"from ILSVRC2012_val_00000001.JPEG on; {DOWNLOAD_AGAIN}"
                )
            absent.remove(number)
            name = classes[number - 1]
            yield "test", f"{name}/{image_name}", image, labels[name]
    if absent:
        raise UserError(f"{path}: ILSVRC2012_val_{min(absent):08}.JPEG is missing; {DOWNLOAD_AGAIN}")


def _read_classes(path: Path, labels: dict[str, int]) -> list[str]:
    """Return the lines of a file, which are names of classes."""
    names = path.read_text(encoding="ascii", errors="replace").split()
    for line, name in enumerate(names, 1):
        if name not in labels:
            raise UserError(f"{path}: line {line}: {name[:20]!r} is not in classes in params.yaml; add it there")
    return names


def _images(file: Any, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files of a tar archive, without hidden ones. Errors name the file `path`."""
    with open_tar(file, "r|") as archive:
        for member in regular_files(archive, path):
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member)
            if content is not None and not name.startswith("."):
                yield name, content.read()


class _ClassArchive(tarfile.TarInfo):
    """A member of the archive of archives, which may be as large as that is. Only other members have a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_ClassArchive":
        """Reject a long name that would fill the memory: it is read at once."""
        member = super().frombuf(buf, encoding, errors)
        if not member.isreg() and not 0 <= member.size <= MAX_HEADER:
            raise tarfile.ReadError(f"{member.name[:200]!r} has a header that announces {member.size} bytes")
        return member
