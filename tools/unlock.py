"""Remove DVC's list of locks where it cannot be read: a DVC that is killed while it writes the list leaves it empty.

Every later command would only say that it is damaged. `make repro` calls this first.
"""

import json
from pathlib import Path

from stages.console import run

TMP = Path(".dvc/tmp")
LOCKS = TMP / "rwlock"


def unlock() -> None:
    """Look once, and once more with the guard that DVC itself holds while it writes."""
    if readable():
        return
    from dvc.lock import make_lock

    with make_lock(str(TMP / "rwlock.lock"), tmp_dir=str(TMP)):
        if not readable():
            LOCKS.unlink()
            print(f"{LOCKS}: removed, a DVC was killed while it wrote it")


def readable() -> bool:
    """Whether the list is not there, or JSON."""
    try:
        json.loads(LOCKS.read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    run(unlock)
