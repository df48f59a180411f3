"""What is different in the folders of `dvc exp run --temp` and of the queue: they have only what Git has."""

import os
import subprocess
from pathlib import Path

from stages.runtime.errors import UserError


def check_history() -> None:
    """Raise a `UserError` before any work if DVC would lose the results of this experiment."""
    if _git("rev-parse", "--is-shallow-repository") == "true":
        raise UserError(
            "this clone is shallow: DVC would lose this experiment; run `git fetch --unshallow` in it first"
        )


def missing_code() -> str:
    """What to do about new modules that this folder lacks, for the end of a message; empty without any."""
    new = _git("ls-files", "--others", "--exclude-standard", "--", "stages/*.py").split("\n")[0]
    return f"; this experiment has only files that Git has: run `git add {new}` if it needs that" if new else ""


def _git(*arguments: str) -> str:
    """What Git says in the clone that started this experiment; empty outside of a temporary folder."""
    clone = Path(os.environ.get("DVC_ROOT", "."))
    if "DVC_EXP_NAME" not in os.environ or clone.resolve() == Path.cwd():
        return ""
    done = subprocess.run(["git", *arguments], cwd=clone, capture_output=True, encoding="utf-8")
    return done.stdout.strip()
