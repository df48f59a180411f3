"""Remove what entries of params.yaml that no longer exist left behind.

DVC keeps the outputs of a stage that is gone. `report` depends on the folders that hold them: with them it would have
other inputs here than in a fresh clone.
"""

from pathlib import Path

from stages.config.schema import Params
from stages.runtime import dvc_lock, paths
from stages.runtime.files import remove

SECTIONS = {
    "preprocess": "archives",
    "preprocess_folder": "folders",
    "extract": "features",
    "join": "pretrained",
    "train": "models",
    "evaluate": "models",
    "export": "export",
    "audit": "audits",
}


def remove_orphans(config: Params) -> list[str]:
    """Remove outputs that dvc.lock names for stages of entries that `config` does not have; say so in a line for each.

    DVC's run cache keeps them all: an entry that comes back gets them without a run.
    """
    removed = []
    stages = dvc_lock.read().get("stages", {})
    needed = {out["path"] for name, stage in stages.items() if _exists(name, config) for out in stage.get("outs", [])}
    for name, stage in stages.items():
        if _exists(name, config):
            continue
        for output in (out["path"] for out in stage.get("outs", []) if out["path"] not in needed):
            if Path(output).exists():
                remove(Path(output))
                removed.append(f"{output}: removed, params.yaml no longer has {name.partition('@')[2]!r}")
    for unfinished, known in ((paths.CHECKPOINTS, config.models), (paths.EXTRACTIONS, config.features)):
        for path in unfinished.glob("[!.]*-*"):
            if path.name.rpartition("-")[0] not in known:
                remove(path)
    return removed


def _exists(stage: str, config: Params) -> bool:
    kind, _, entry = stage.partition("@")
    return kind not in SECTIONS or entry in getattr(config, SECTIONS[kind])
