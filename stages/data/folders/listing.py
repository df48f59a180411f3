"""The image files in a folder or an archive, without unpacking it, and without leaving it."""

import functools
import lzma
import os
import re
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.data.convert import HEIF_SUFFIXES, INSTALL_HEIF
from stages.data.formats._archive import (
    CORRUPT_ERRORS,
    MAX_DEPTH,
    MAX_FILE,
    MAX_RATIO,
    MAX_UNPACKED,
    Bounded,
    open_gzip,
    open_tar,
    regular_files,
)
from stages.runtime.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
SYMLINK = 0o120000  # the type of a file in the mode that zip archives store
ENCRYPTED = 1  # a flag of zip archives
UTF_8 = 0x800  # a flag of zip archives: the name is UTF-8
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of zip archives; others are unpacked without a limit, and rare

# What systems add to folders and archives, beside names that begin with a dot
SYSTEM = {
    *("__macosx", "icon\r", "desktop.ini", "thumbs.db", "ehthumbs.db", "$recycle.bin", "recycler"),
    *("system volume information", "found.000", "lost+found", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot"),
}
# Suffixes of pictures that cannot be read, unlike those of other files, such as a text
PICTURES = (
    *(*HEIF_SUFFIXES, ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".eps", ".ico", ".tga", ".ppm", ".pgm", ".pnm", ".exr"),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".dcm", ".nii", ".npy", ".pdf"),
)


class File(NamedTuple):
    """A file of a source. `read` raises a `ValueError` whose message continues "the file …" if it is too large."""

    name: str  # relative to the source, with slashes, in Unicode's composed form: the same on every system
    read: Callable[[], bytes]  # of an archive: to be called before the next file is asked for


def files(source: Path) -> Iterator[File]:
    """Yield the files of a folder in the order of their names, or of an archive in its own order.

    Hidden files, and those that systems add, are left out.

    Raises:
        UserError: there is no such source, or it is corrupt, a bomb, or has links or paths that lead out of it.
    """
    if source.is_dir():
        found = _folder(source)
    elif not source.exists():
        raise UserError(f"{source}: no such folder, archive or table; correct its path")
    elif source.name.lower().endswith(ARCHIVES):
        found = _zip(source) if source.suffix.lower() == ".zip" else _tar(source)
    else:
        raise UserError(f"{source}: it is no folder, no table (.csv, .parquet) and no archive ({', '.join(ARCHIVES)})")
    for name, read in found:
        if re.search("[\ud800-\udfff]", name):
            raise UserError(f"{source}: {name!r} has a name that is not UTF-8; rename it")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not any(map(is_hidden, parts)):
            yield File(unicodedata.normalize("NFC", "/".join(parts)), read)


def is_hidden(part: str) -> bool:
    """Whether a file or folder is hidden by its own name, or one that a system adds."""
    return part.startswith((".", "~$")) or part.lower() in SYSTEM


def unreadable(names: Iterable[str]) -> str:
    """How many pictures of each format cannot be read, and what to do; empty if there are none."""
    kinds = Counter(suffix for name in names if (suffix := PurePosixPath(name).suffix.lower()) in PICTURES)
    other = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()) if kind not in HEIF_SUFFIXES)
    heif = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()) if kind in HEIF_SUFFIXES)
    advice = [f"{heif}: {INSTALL_HEIF}"] if heif else []
    return "; ".join(advice + ([f"{other}: convert to JPEG or PNG"] if other else []))


def read_file(path: Path) -> bytes:
    """Read an image file.

    Raises:
        ValueError: it is larger than any image.
    """
    _check_size(path.stat().st_size)
    return path.read_bytes()


def check_inside(path: Path, root: Path, name: str) -> None:
    """Raise a `UserError` if a link leads out of the folder `root`, or nowhere, or to a folder."""
    target = Path(os.path.realpath(path))  # unlike `resolve`, it takes a link to itself
    if not target.is_relative_to(root.resolve()) and not _is_cached(target):
        raise UserError(f"{root}: {name!r} is a link out of the folder; replace it by the file")
    if path.is_symlink() and not target.is_file():
        raise UserError(f"{root}: {name!r} is a link to {'a folder' if target.is_dir() else 'nothing'}; remove it")


def _is_cached(file: Path) -> bool:
    """Whether a file is in the cache of this repository, to which `dvc add` may link."""
    cache = _dvc_cache(Path.cwd())
    return cache is not None and file.is_relative_to(cache)


@functools.cache
def _dvc_cache(repository: Path) -> Path | None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(repository) as repo:
            return Path(os.path.realpath(repo.cache.local.path))
    except DvcException:  # not in a repository
        return None


def _folder(root: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        if prefix.count("/") > MAX_DEPTH:
            raise UserError(f"{root}: {prefix[:80]!r}… is more than {MAX_DEPTH} folders deep; flatten it")
        below = []
        for entry in ordered:
            name, path = prefix + entry.name, Path(entry.path)
            if is_hidden(entry.name):
                continue
            if entry.is_symlink():
                check_inside(path, root, name)
            if entry.is_dir(follow_symlinks=False):
                below.append((f"{name}/", path))
            elif entry.is_file():
                yield name, partial(read_file, path)
        waiting += reversed(below)


def _zip(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with _named(path), zipfile.ZipFile(path) as archive:
        limit = max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)
        if sum(member.file_size for member in archive.infolist()) > limit:
            raise UserError(f"{path}: it unpacks to more than {limit:,} bytes; do not use this archive")
        for member in archive.infolist():
            name = _zip_name(member, path).replace("\\", "/")  # as some programs on Windows write it
            if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
                raise UserError(f"{path}: {name[:200]!r} is a path out of the archive; do not use this archive")
            if member.external_attr >> 16 & 0o170000 == SYMLINK:
                raise UserError(f"{path}: {name[:200]!r} is a link; do not use this archive")
            if member.flag_bits & ENCRYPTED:
                raise UserError(f"{path}: {name[:200]!r} is encrypted; pack it without a password")
            if member.compress_type not in METHODS:
                raise UserError(f"{path}: {name[:200]!r} is not packed by deflate, the usual method; pack it again")
            if not member.is_dir():
                yield name, _reader(path, member.file_size, partial(_unpack, archive, member))


def _zip_name(member: zipfile.ZipInfo, path: Path) -> str:
    """The name of a member; a name that is not marked as UTF-8 may be so nevertheless."""
    if member.flag_bits & UTF_8 or member.filename.isascii():
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except ValueError:
        raise UserError(
            f"{path}: the name {member.filename[:200]!r} is not UTF-8, so its letters depend on the computer; unpack "
            "it where it was made, and give the folder, or pack it with names in UTF-8"
        ) from None


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read a member of a zip archive, and no more than the size that it is said to have, however much it unpacks to."""
    with archive.open(member) as file:
        return file.read(member.file_size + 1)  # with one byte more, the checksum is compared


def _tar(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    suffix = path.suffix.lower()
    with _named(path):
        if suffix in (".gz", ".tgz"):
            with open_gzip(path) as stream:
                yield from _members(stream, path)
        elif suffix in (".xz", ".txz"):
            with lzma.open(path) as packed:
                yield from _members(Bounded(packed, path), path)
        else:
            with path.open("rb") as plain:
                yield from _members(plain, path)


def _members(stream: object, path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with open_tar(stream, "r|") as archive:
        for member in regular_files(archive, path):
            file = archive.extractfile(member)
            assert file is not None  # a regular file
            yield member.name, _reader(path, member.size, file.read)


def _reader(path: Path, size: int, read: Callable[[], bytes]) -> Callable[[], bytes]:
    """A function that reads a member of an archive unless it is too large."""

    def checked() -> bytes:
        _check_size(size)
        with _named(path):
            return read()

    return checked


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the archive in the errors of its libraries."""
    try:
        yield
    except (*CORRUPT_ERRORS, lzma.LZMAError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path}: corrupt: {' '.join(str(error).split())}; pack it again") from None


def _check_size(size: int) -> None:
    if size > MAX_FILE:
        raise ValueError(f"has {size:,} bytes, more than {MAX_FILE:,}")
