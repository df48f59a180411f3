"""dvc.lock as text: the entries of stages, without parsing what does not change.

DVC parses and writes all of it for each stage, which takes seconds with twenty models.
"""

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from stages.runtime import paths
from stages.runtime.files import atomic_write
from tools.lib.git import git, read_files

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


def explain_changes() -> str | None:
    """Say why outputs that Git tracks are not the committed ones, if code and params are."""
    committed, text = read_files("HEAD", [paths.LOCK]).get(paths.LOCK, ""), paths.LOCK.read_text(encoding="utf-8")
    if text == committed or not committed or _inputs(committed) != _inputs(text):
        return None
    changed = git("diff", "--name-only", "HEAD", "--", str(paths.LOCK), "reports")
    return (
        f"dvc.lock and {len(changed.splitlines()) - 1} other files in Git are not the committed ones, although code "
        "and params are: this machine or its packages compute other bits (docs/reproducibility.md); commit them to "
        "go on from here, or take them back with `git checkout dvc.lock reports && dvc checkout`"
    )


def _inputs(text: str) -> dict[str, Any]:
    """Of each stage: its command, params, and those of its inputs that no stage writes."""
    stages = yaml.load(text, yaml.CSafeLoader).get("stages", {})
    outs = {PurePosixPath(out["path"]) for stage in stages.values() for out in stage.get("outs", [])}
    folders = {parent for out in outs for parent in out.parents}

    def is_output(path: PurePosixPath) -> bool:
        return path in folders or not outs.isdisjoint([path, *path.parents])

    return {
        name: (
            stage["cmd"],
            stage.get("params"),
            [dep for dep in stage.get("deps", []) if not is_output(PurePosixPath(dep["path"]))],
        )
        for name, stage in stages.items()
    }
