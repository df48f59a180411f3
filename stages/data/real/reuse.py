"""Find a published file that is there already, so that a change of code downloads nothing again."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stages.runtime.files import file_hash

if TYPE_CHECKING:
    from stages.config.datasets import MirrorConfig


def reuse(path: Path, mirrors: "list[MirrorConfig]", folder: Path) -> bool:
    """Copy to `path` the file of the same name in `folder`, which DVC leaves there, if it has a published hash.

    Returns:
        Whether there was one.
    """
    found = folder / path.name
    if not found.is_file() or not has_published_hash(found, mirrors):
        return False
    shutil.copyfile(found, path)
    print(f"{path.name}: found in {folder}", flush=True)
    return True


def has_published_hash(path: Path, mirrors: "list[MirrorConfig]") -> bool:
    """Whether a file has the hash of one of its mirrors."""
    expected = {tuple(mirror.hash.split(":")) for mirror in mirrors if mirror.hash}
    return any((algorithm, file_hash(path, algorithm)) in expected for algorithm in {name for name, _ in expected})
