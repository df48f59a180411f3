"""Remove DVC's list of locks if it is corrupt: a DVC that is killed while it writes the list leaves it empty.

Every later DVC command would fail. `make repro` calls this first.
"""

import json
from pathlib import Path

from dvc.lock import make_lock

from stages.runtime.cli import run

LOCKS = Path(".dvc/tmp/rwlock")


def unlock() -> None:
    """Remove the list if it is not JSON, while holding the lock under which DVC writes it."""
    if not LOCKS.exists():
        return
    with make_lock(f"{LOCKS}.lock", tmp_dir=str(LOCKS.parent)):
        try:
            json.loads(LOCKS.read_text(encoding="utf-8"))
        except ValueError:
            LOCKS.unlink()
            print(f"{LOCKS}: corrupt, because a DVC was killed while it wrote it: removed")


if __name__ == "__main__":
    run(unlock)
