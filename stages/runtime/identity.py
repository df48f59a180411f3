"""Names for unfinished work: hashes of everything that decides its result, so that nothing else is ever continued."""

import hashlib
import json
from collections.abc import Iterable

from stages.runtime import dvc_lock, paths
from stages.runtime.files import file_hash


def data_identity(dataset: str, splits: list[str]) -> str:
    """What no other data have, without reading them if DVC has done so.

    It is DVC's hash of the records, and names, sizes and times of their files, because the records may have been
    written since without DVC. Records that dvc.lock does not know, as on another node, are hashed here.

    Args:
        dataset: whose records are read.
        splits: those that are read, in the syntax of TFDS.
    """
    folder = paths.records(dataset)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    known = dvc_lock.output_hashes().get(folder.as_posix())
    if known is None:
        return json.dumps([splits, [(path.name, file_hash(path, "blake2b")) for path in files]])
    return json.dumps([splits, known, [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]])


def digest(parts: Iterable[bytes]) -> str:
    """16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()
