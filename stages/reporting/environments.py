"""Results that were computed elsewhere: DVC's run cache and `dvc pull` bring them, with other bytes than here."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from stages.runtime import paths
from stages.runtime.files import open_input
from stages.runtime.numerics import machine


def describe(environment: dict[str, str]) -> str:
    """A recorded environment as text, without the facts that are not the machine's."""
    return ", ".join(f"{key} {value}" for key, value in environment.items() if key not in ("threads", "compute_dtype"))


def notes() -> Iterator[str]:
    """One line for each environment other than this machine's that results in the workspace were computed in."""
    here = machine()
    stages: dict[str, list[str]] = defaultdict(list)
    for path in sorted(Path().glob(str(paths.environment("*", "*")))):
        stage = f"{path.parent.name}@{path.stem}"
        with open_input(path, stage) as file:
            found = json.load(file)
            other = {
                key: found[key] for key in here if found.get(key, here[key]) != here[key]
            }  # portable: versions alone
        if other:
            stages[describe(other)].append(stage)
    for other_machine, names in stages.items():
        text = f"note: computed with {other_machine}, here {describe(here)}: {', '.join(names)}"
        yield f"{text}; `dvc repro --force --single-item STAGE` repeats one"
