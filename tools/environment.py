"""Say which results in the workspace were computed elsewhere: `make repro` does this after the last stage."""

import json
from collections import defaultdict
from pathlib import Path

from stages.runtime import numerics, paths
from stages.runtime.cli import run
from stages.runtime.files import open_input


def read(stage: str, name: str) -> dict[str, str]:
    """The environment that `stage` recorded for `name`; see `stages.runtime.numerics.environment`.

    Raises:
        UserError: the file is missing or corrupt.
    """
    with open_input(paths.environment(stage, name), f"{stage}@{name}") as file:
        found = json.load(file)
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ValueError("not a mapping of names to text")
        return found


def differences() -> list[str]:
    """One line for each environment other than this machine's that results in the workspace were computed in.

    DVC's run cache and `dvc pull` bring results from other machines, where the same code and data give other bytes.
    """
    here = numerics.machine()
    stages: dict[str, list[str]] = defaultdict(list)
    for path in sorted(Path().glob(str(paths.environment("*", "*")))):
        stage, name = path.parent.name, path.stem
        found = read(stage, name)
        other = [f"{key} {found.get(key, 'unknown')}" for key in here if found.get(key) != here[key]]
        if other:
            stages[", ".join(other)].append(f"{stage}@{name}")
    local = ", ".join(f"{key} {value}" for key, value in here.items())
    return [
        f"computed with {other}, here {local}: {_shorten(names)}; `dvc repro --force --single-item STAGE` repeats one"
        for other, names in stages.items()
    ]


def _shorten(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def compare() -> None:
    """Print one line for each other environment; nothing where all results were computed on a machine like this."""
    for line in differences():
        print(f"note: {line}")


if __name__ == "__main__":
    run(compare)
