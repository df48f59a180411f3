"""Read Imagenette's format: a tgz of JPEG files, TOP/train/CLASS/name.JPEG and TOP/val/CLASS/name.JPEG."""

from collections.abc import Iterator
from pathlib import Path

from stages.data.formats._archive import open_tar, single_file
from stages.runtime.errors import UserError

SPLITS = {"train": "train", "val": "test"}  # the published validation split is our test split


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, bytes, int]]:
    """Yield (split, key, image, label) in the order of the archive: image is the file's bytes, key "CLASS/name.JPEG".

    Hidden files and files outside of class folders are skipped. The images are not checked here.

    Raises:
        UserError: the archive is corrupt, a split has no images, or a class folder is not in `classes`.
    """
    path = single_file(folder, "*.tgz")
    labels = {name: label for label, name in enumerate(classes)}
    empty = set(SPLITS)
    with open_tar(path) as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            is_image = member.isfile() and len(parts) == 4 and parts[1] in SPLITS
            if not is_image or any(part.startswith(".") for part in parts):
                continue
            if parts[2] not in labels:
                raise UserError(f"{path}: {member.name!r}: {parts[2]!r} is not in classes in params.yaml; add it there")
            file = archive.extractfile(member)
            yield SPLITS[parts[1]], f"{parts[2]}/{parts[3]}", file.read() if file else b"", labels[parts[2]]
            empty.discard(parts[1])
    if empty:
        raise UserError(f"{path}: it has no file TOP/{min(empty)}/CLASS/NAME; arrange it like Imagenette's archive")
