"""The files in a folder of images, without leaving it."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from stages.data.convert import HEIF_SUFFIXES, INSTALL_HEIF
from stages.runtime.errors import UserError
from stages.runtime.paths import dvc_cache

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".txz", ".7z", ".rar")

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


def files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder in the order of their names, each with its name relative to the folder.

    A name has slashes and Unicode's composed form, the same on every system. Hidden files, and those that systems add,
    are left out.

    Raises:
        UserError: there is no such folder, or it has links that lead out of it.
    """
    if not root.exists():
        raise UserError(f"{root}: no such folder or table; correct its path")
    if not root.is_dir():
        advice = "unpack it, and give the folder" if root.name.lower().endswith(ARCHIVES) else "correct its path"
        raise UserError(f"{root}: it is no folder and no table (.csv, .parquet); {advice}")
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        below = []
        for entry in ordered:
            name, path = prefix + entry.name, Path(entry.path)
            if is_hidden(entry.name):
                continue
            if re.search("[\ud800-\udfff]", name):
                raise UserError(
                    f"{root}: {name!r} is no name in UTF-8; rename it, or unpack its archive with the encoding of the "
                    f"names, such as `unzip -O cp932 {root.name}.zip`"
                )
            if entry.is_symlink():
                check_inside(path, root, name)
            if entry.is_dir(follow_symlinks=False):
                below.append((f"{name}/", path))
            elif entry.is_file():
                yield unicodedata.normalize("NFC", name), path
        waiting += reversed(below)


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


def check_inside(path: Path, root: Path, name: str) -> None:
    """Raise a `UserError` if a link leads out of the folder `root`, or nowhere, or to a folder."""
    target = Path(os.path.realpath(path))  # unlike `resolve`, it takes a link to itself
    cache = dvc_cache(Path.cwd())  # to which `dvc add` may link
    if not target.is_relative_to(root.resolve()) and not (cache and target.is_relative_to(cache)):
        raise UserError(f"{root}: {name!r} is a link out of the folder; replace it by the file")
    if path.is_symlink() and not target.is_file():
        raise UserError(f"{root}: {name!r} is a link to {'a folder' if target.is_dir() else 'nothing'}; remove it")
