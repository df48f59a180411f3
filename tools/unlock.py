"""Remove DVC's list of locks if it is corrupt: a DVC that is killed while it writes the list leaves it empty.

Every later DVC command would fail. `make repro` calls this first.
"""

import json
from pathlib import Path

from stages.runtime.cli import run

TMP = Path(".dvc/tmp")
LOCKS = TMP / "rwlock"


def unlock() -> None:
    """Remove the list if it is not JSON, also while holding the lock under which DVC writes it."""
    if is_readable():
        return
    from dvc.lock import make_lock

    with make_lock(str(TMP / "rwlock.lock"), tmp_dir=str(TMP)):
        if not is_readable():
            LOCKS.unlink()
            print(f"{LOCKS}: corrupt, because a DVC was killed while it wrote it: removed")


def is_readable() -> bool:
    """Whether the list is JSON, or absent."""
    try:
        json.loads(LOCKS.read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    run(unlock)
