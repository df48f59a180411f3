"""Find a published file that this machine already has, so that a change of code downloads nothing again."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.runtime.files import PARSE_ERRORS, file_hash
from stages.runtime.paths import dvc_cache

if TYPE_CHECKING:
    from stages.config.datasets import MirrorConfig


def reuse(path: Path, mirrors: "list[MirrorConfig]", folder: Path) -> bool:
    """Link or copy to `path` a file of the same name with a published hash, from `folder` or from DVC's cache.

    Returns:
        Whether there was one.
    """
    for found in (folder / path.name, *_cached(path.name)):
        if not found.is_file() or not has_published_hash(found, mirrors):
            continue
        try:
            os.link(found, path)  # the bytes need not lie on the disk twice
        except OSError:  # another disk
            shutil.copyfile(found, path)
        where = folder if found.parent == folder else "DVC's cache"
        print(f"{path.name}: found in {where}", flush=True)
        return True
    return False


def has_published_hash(path: Path, mirrors: "list[MirrorConfig]") -> bool:
    """Whether a file has the hash of one of its mirrors."""
    expected = {tuple(mirror.hash.split(":")) for mirror in mirrors if mirror.hash}
    return any((algorithm, file_hash(path, algorithm)) in expected for algorithm in {name for name, _ in expected})


def _cached(name: str) -> Iterator[Path]:
    """Files of this name in DVC's cache: DVC empties data/raw before it runs a stage."""
    if (cache := dvc_cache(Path.cwd())) is None:
        return
    for listing in sorted(cache.glob("*/*.dir")):  # the content of an output that is a folder
        try:
            hashes = [entry["md5"] for entry in json.loads(listing.read_bytes()) if entry["relpath"] == name]
        except PARSE_ERRORS:  # corrupt: DVC will say so
            continue
        yield from (cache / md5[:2] / md5[2:] for md5 in hashes)
