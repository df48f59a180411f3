"""Find a published file that this machine already has, so that a change of code downloads nothing again."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from stages.config.datasets import MirrorConfig

CHUNK = 1 << 20  # bytes


def reuse(path: Path, mirrors: "list[MirrorConfig]", folder: Path) -> bool:
    """Link or copy to `path` a file of the same name with a published hash, from `folder` or from DVC's cache.

    Returns:
        Whether there was one.
    """
    for found, where in _candidates(path.name, folder):
        try:
            with found.open("rb") as file:
                is_valid = has_published_hash(file, mirrors)
        except OSError:  # missing, or not readable
            continue
        if is_valid:
            _link(found, path)
            print(f"{path.name}: found in {where}", flush=True)
            return True
    return False


def has_published_hash(file: BinaryIO, mirrors: "list[MirrorConfig]") -> bool:
    """Whether the content of `file` has the hash of one of its mirrors."""
    expected = {mirror.hash for mirror in mirrors}
    digests = [hashlib.new(algorithm, usedforsecurity=False) for algorithm in {h.partition(":")[0] for h in expected}]
    while chunk := file.read(CHUNK):
        for digest in digests:
            digest.update(chunk)
    return any(f"{digest.name}:{digest.hexdigest()}" in expected for digest in digests)


def _candidates(name: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that may be the one: `folder` first, which DVC empties before it runs a stage, then DVC's cache."""
    yield folder / name, str(folder)
    cache = _dvc_cache()
    if cache is None:
        return
    hashes = set()
    for listing in sorted(cache.glob("*/*.dir")):  # the content of an output that is a folder
        try:
            hashes |= {entry["md5"] for entry in json.loads(listing.read_bytes()) if entry["relpath"] == name}
        except (OSError, ValueError, LookupError, TypeError):  # corrupt: DVC will say so
            continue
    for md5 in sorted(hashes):
        yield cache / md5[:2] / md5[2:], "DVC's cache"


def _dvc_cache() -> Path | None:
    """The folder of DVC's cache, whichever way it is configured; None outside of a repository."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local.path) if repo.cache.local else None
    except DvcException:
        return None


def _link(source: Path, target: Path) -> None:
    """Link a file without its bytes lying on the disk twice, or copy it to where links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
