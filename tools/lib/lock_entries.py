"""dvc.lock as text: the entries of stages, without parsing what does not change.

DVC parses and writes all of it for each stage, which takes seconds with twenty models.
"""

import re
from typing import TYPE_CHECKING

import yaml

from stages.runtime import paths
from stages.runtime.files import atomic_write

if TYPE_CHECKING:
    from dvc.stage import Stage

HEAD = "schema: '2.0'\nstages:\n"


def write(stage: "Stage") -> None:
    """Write the entry of a stage that was just run, as DVC does: a new one comes last."""
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import dumps_yaml

    head, entries, tail = split(paths.LOCK.read_text(encoding="utf-8") if paths.LOCK.exists() else "")
    entries[stage.name] = dumps_yaml({"stages": to_lockfile(stage)}).partition("\n")[2]
    with atomic_write(paths.LOCK) as part:
        part.write_text(head + "".join(entries.values()) + tail, encoding="utf-8")


def split(text: str) -> tuple[str, dict[str, str], str]:
    """What comes before the entries of stages, the entries by the names of the stages, and what comes after."""
    found = re.search(r"^stages:\n((?: .*\n|\n)*)", text, re.MULTILINE)
    if not found:
        return HEAD, {}, ""
    entries = {}
    for entry in re.split(r"^(?=  \S)", found[1], flags=re.MULTILINE)[1:]:
        (name,) = yaml.safe_load(entry.partition("\n")[0])
        entries[name] = entry
    return text[: found.start(1)], entries, text[found.end() :]
