"""Say which results in the workspace were computed elsewhere: `make repro` does this after the last stage."""

import json
from collections import defaultdict
from pathlib import Path

from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.files import open_input
from stages.runtime.numerics import machine
from tools.machine import describe


def compare() -> None:
    """Print one line for each environment other than this machine's that results in the workspace were computed in.

    DVC's run cache and `dvc pull` bring results from other machines, where the same code and data give other bytes.
    """
    here = machine()
    stages: dict[str, list[str]] = defaultdict(list)
    for path in sorted(Path().glob(str(paths.environment("*", "*")))):
        stage = f"{path.parent.name}@{path.stem}"
        with open_input(path, stage) as file:
            found = json.load(file)
            other = {key: found.get(key, "unknown") for key in here if found.get(key) != here[key]}
        if other:
            stages[describe(other)].append(stage)
    for other_machine, names in stages.items():
        text = f"note: computed with {other_machine}, here {describe(here)}: {', '.join(names)}"
        print(f"{text}; `dvc repro --force --single-item STAGE` repeats one")


if __name__ == "__main__":
    run(compare)
