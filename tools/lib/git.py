"""Git commands, and the DVC experiments that Git's references name."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.runtime.errors import UserError


class Experiment(NamedTuple):
    """A finished DVC experiment: its name and its Git reference."""

    name: str
    ref: str


def git(*arguments: str | Path, cwd: Path = Path(), environment: dict[str, str] | None = None) -> str:
    """The output of a Git command; a `UserError` if it fails."""
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    done = subprocess.run(command, cwd=cwd, env=os.environ | (environment or {}), capture_output=True, encoding="utf-8")
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def read_files(rev: str, paths: Iterable[Path]) -> dict[Path, str]:
    """The texts of files of a revision, as far as it has them. Paths are relative to the working directory."""
    wanted = list(paths)
    names = "".join(f"{rev}:./{path.as_posix()}\n" for path in wanted)
    output = subprocess.run(
        ["git", "cat-file", "--batch"], input=names.encode(), capture_output=True, check=True
    ).stdout
    found = {}
    for path in wanted:
        head, _, output = output.partition(b"\n")
        if not head.endswith(b" missing"):
            size = int(head.rsplit(b" ", 1)[1])
            found[path], output = output[:size].decode(), output[size + 1 :]
    return found


def experiments(pattern: str = "*") -> list[Experiment]:
    """The DVC experiments whose names match a pattern, of every commit, older first.

    `dvc exp show` reads the params and metrics of each, which takes seconds.
    """
    refs = git("for-each-ref", "--sort=creatordate", "--format=%(refname)", f"refs/exps/*/*/{pattern}").split()
    # refs/exps/AB/CDEF…/NAME, after the commit that it started from; others are DVC's own
    return [Experiment(ref.split("/", 4)[4], ref) for ref in refs if len(ref.split("/")[2]) == 2]
