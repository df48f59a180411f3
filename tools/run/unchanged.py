"""`make unchanged`: record changed code in dvc.lock for trainings and extractions whose results it does not change.

A probe of each stale stage, a training of seconds, runs with the code that dvc.lock names, from Git, and with today's.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.runtime import dvc_lock
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib.git import git
from tools.lib.probes import probe

PROBED = ("train", "extract")
CODE = "stages/"
COMMITS = 50  # of those that changed dvc.lock or the code, to look for the code that dvc.lock names


def unchanged() -> None:
    """Probe stale stages, record those that compute the same, and run what else is stale, such as the report.

    Nothing runs as long as a training or an extraction is stale.

    Raises:
        UserError: a training or an extraction stays stale, a probe fails, or a stage that runs.
    """
    try:
        _record_unchanged()
    except DvcException as error:  # such as that another DVC runs here
        raise UserError(" ".join(str(error).split())) from None


def _record_unchanged() -> None:
    stale = _stale_by_code()
    if not stale:
        print("no training or extraction is stale because of its code")
        return
    remaining = dict(stale)
    same: list[str] = []
    for commit in git("log", f"-{COMMITS}", "--format=%H", "--", "dvc.lock", "stages").split():
        if not remaining:
            break
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            git("archive", f"--output={folder / 'code.zip'}", commit)
            shutil.unpack_archive(folder / "code.zip", folder)
            stages = [stage for stage, deps in remaining.items() if _has(folder, deps)]
            if stages:
                before, now = probe(stages, folder), probe(stages)
                same += [stage for stage in stages if before[stage] == now[stage]]
                remaining = {stage: deps for stage, deps in remaining.items() if stage not in stages}
    with Repo() as repo:
        for stage in same:
            repo.commit(stage, force=True)
            print(f"{stage}: computes the same; dvc.lock has the new code")
        left = repo.status()
    trainings = sorted(stage for stage in left if stage.partition("@")[0] in PROBED)
    for stage in trainings:
        why = "no commit has the code it was trained with" if stage in remaining else "computes something else"
        print(f"{stage}: {why if stage in stale else 'not its code alone changed'}; stays stale")
    if trainings:
        raise UserError("some stages stay stale, see above; run `make repro`")
    if left and subprocess.run(["dvc", "repro"]).returncode:
        raise UserError("a stage failed: see above")


def _stale_by_code() -> dict[str, dict[str, str]]:
    """Stale stages to probe of which nothing but code has changed: path and hash of the code in dvc.lock."""
    lock = dvc_lock.read().get("stages", {})
    stale = {}
    with Repo() as repo:
        for stage in repo.index.stages:
            name = stage.addressing
            if (
                name.partition("@")[0] not in PROBED
                or name not in lock
                or any(out.workspace_status() for out in stage.outs)  # changed or missing
            ):
                continue
            changed = [str(dep) for dep in stage.deps if dep.workspace_status()]
            if changed and all(path.startswith(CODE) for path in changed):
                deps = {dep["path"]: dep["md5"] for dep in lock[name]["deps"]}
                stale[name] = {path: md5 for path, md5 in deps.items() if path.startswith(CODE)}
    return stale


def _has(folder: Path, code: dict[str, str]) -> bool:
    """Whether these files and folders of a checkout have these hashes of DVC."""
    from dvc.fs import localfs
    from dvc_data.hashfile.build import build

    with Repo() as repo:
        for path, md5 in code.items():
            if not (folder / path).exists():
                return False
            _, _, content = build(repo.cache.local, str(folder / path), localfs, "md5", dry_run=True)
            if content.hash_info.value != md5:
                return False
    return True


if __name__ == "__main__":
    run(unchanged)
