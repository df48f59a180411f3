"""`make new`: turn the clone into a project of one's own: what belongs to the sample leaves, code and documents stay.

The tests work on the sample: its params.yaml and dvc.lock move to tests/sample.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.config import params
from stages.config.schema import Params
from stages.reporting.orphans import remove_orphans
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.compare.measure import write_tables
from tools.lib.git import git
from tools.lib.params_file import rewrite

SAMPLE = Path("tests/sample")
KEY = re.compile(r"( *)([\w-]+):")


def new() -> None:
    """Leave in params.yaml what is on entries of `folders`, and remove the results of all other models."""
    if git("status", "--porcelain"):
        raise UserError("there are changes that are not committed; commit them first, so that Git can undo this")
    values = params.load()
    if SAMPLE.exists():
        raise UserError(f"{SAMPLE} exists: this clone has its own project already; add data with `make dataset`")
    kept = _own(values)
    text = paths.PARAMS.read_text(encoding="utf-8")
    own = without_entries(text, {section: set(getattr(values, section)) - names for section, names in kept.items()})
    config = params.check(YAML(typ="safe").load(own), paths.PARAMS)  # before anything is removed
    SAMPLE.mkdir()
    for file in filter(Path.exists, (paths.PARAMS, paths.LOCK)):
        shutil.copy(file, SAMPLE)
    rewrite(paths.PARAMS, own)
    remove_orphans(config)
    for path in (paths.LOCK, paths.REPORT, paths.PAGE):
        path.unlink(missing_ok=True)
    for folder in sorted(paths.MEASURED.glob("**/seed-*")):
        for result in folder.glob("*/*"):
            if result.stem not in config.models:
                result.unlink()
        if not _keep(folder / "runs.json", config):
            shutil.rmtree(folder)
    _keep(paths.PROBES, config)
    _keep(paths.PUBLISHED, config)
    write_tables()
    print(f"{paths.PARAMS}: {', '.join(kept['models']) or 'empty'}. Next: make dataset NAME=… FROM=…, then make repro")


def _keep(path: Path, config: Params) -> bool:
    """Leave the models of params.yaml in a mapping, if the file exists. Returns whether there are any."""
    if not path.exists():
        return False
    entries = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    kept = {name: entry for name, entry in entries.items() if name in config.models}
    rewrite(path, json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return bool(kept)


def _own(values: Params) -> dict[str, set[str]]:
    """The names that stay in each section: of the datasets in `folders`, and of what is built on them."""
    features = {name for name, entry in values.features.items() if entry.dataset in values.folders}
    models = {name for name in values.models if values.image_dataset(name) in values.folders}
    return {
        "datasets": set(),
        "weights": {values.features[name].backbone for name in features},
        "features": features,
        "not_in_pretraining": values.not_in_pretraining.keys() & values.folders.keys(),
        "pretrained": {name for name, entry in values.pretrained.items() if entry.dataset in values.folders},
        "models": models,
        "gates": values.gates.keys() & models,
        "audits": values.audits.keys() & values.folders.keys(),
        "search": values.search.keys() & models,
        "export": set(values.export) & models,
    }


def without_entries(text: str, removed: dict[str, Any]) -> str:
    """The text of params.yaml without entries of sections; a comment above an entry goes with it."""
    lines, section, drop = [], "", False
    above: list[str] = []  # comments in a section, until the entry below them is known
    for line in text.splitlines(keepends=True):
        key = KEY.match(line)
        if not line.strip():
            lines += [*above, line]
            above = []
            continue
        if line[:1] not in (" ", "-"):  # the key of a section, or what stands between two
            section, drop = key[2] if key else "", False
            lines += above
            above = []
        elif line.startswith("- "):
            drop = line[2:].strip() in removed.get(section, ())
        elif key and len(key[1]) == 2:
            drop = key[2] in removed.get(section, ())
        elif re.match(r"  #", line):
            above.append(line)
            continue
        if not drop:
            lines += [*above, line]
        above = []
    # A section without entries is an empty mapping, whatever comments are left in it
    return re.sub(
        r"^(\w+):(?=[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*(?:\w|\Z))",
        lambda found: f"{found[0]} []" if found[1] == "export" else f"{found[0]} {{}}",
        "".join([*lines, *above]),
        flags=re.MULTILINE,
    )


if __name__ == "__main__":
    run(new)
