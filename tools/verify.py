"""`make verify`: run the pipeline from scratch in two clones of HEAD and compare all outputs of all stages."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

from ruamel.yaml import YAML
from tqdm import tqdm

from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.base import git

Hashes = dict[tuple[str, str], str]  # (stage, path of an output) → MD5, of a folder's listing with ".dir" behind it
Key = TypeVar("Key")


def verify() -> None:
    """Exit with 1 if a stage fails or an output differs; both clones and their logs are kept then."""
    root = Path.cwd()
    if git("status", "--porcelain", "--untracked-files=no"):
        print("note: verifying HEAD, without the uncommitted changes")
    work = Path(tempfile.mkdtemp(prefix="verify-"))
    clones = [work / "first", work / "second"]
    try:
        for clone in clones:
            git("clone", "--quiet", root, clone)
        committed = hashes(clones[0])
        same = reproduce(clones) and compare(clones, committed)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    if not same:
        sys.exit(f"not verified; clones and logs are kept in {work}")
    shutil.rmtree(work)


def reproduce(clones: list[Path]) -> bool:
    """Run every stage in every clone, the clones side by side: most of a stage is TensorFlow starting in one thread.

    Each clone's output goes to a file beside it. If one fails, the others end, and the last lines of its log appear.
    """
    environment = _environment(clones[0].parent)
    listing = ["dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(listing, cwd=clones[0], env=environment, stdout=subprocess.PIPE)
    if listed.returncode:
        raise UserError("dvc stage list failed, see above")
    # Forced: DVC would not run a stage whose outputs are all in Git.
    command = ["dvc", "repro", "--force"]
    processes: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        for clone in clones:
            log = clone.with_suffix(".log")
            with log.open("wb") as output:
                # In a session of its own, so that DVC and its stage end together.
                processes[log] = subprocess.Popen(
                    command, cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
        interval = 1 if sys.stderr.isatty() else 30
        with tqdm(
            total=len(clones) * len(listed.stdout.split()), desc="two clones", unit="stage", mininterval=interval
        ) as bar:
            while all(not process.returncode for process in processes.values()) and None in [
                process.poll() for process in processes.values()
            ]:
                time.sleep(1)
                bar.update(sum(log.read_bytes().count(b"Running stage") for log in processes) - bar.n)
        failed = [log for log, process in processes.items() if process.returncode]
    finally:
        for process in processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    for path in failed:
        print(f"{path}: dvc repro failed:", *path.read_text(errors="replace").splitlines()[-15:], sep="\n  ")
    return not failed


def compare(clones: list[Path], committed: Hashes) -> bool:
    """Print the outputs that differ between two clones, and from `committed`; return whether the clones agree."""
    first, second = (hashes(clone) for clone in clones)
    unlike = differing(first, second)
    for stage, path in unlike:
        print(f"differs: {stage}: {path}")
        files = [
            _files(clone, found.get((stage, path), "")) for clone, found in zip(clones, (first, second), strict=True)
        ]
        for file in differing(*files):
            print(f"  {file}")
    if not unlike:
        print(f"same in both clones: {len(first)} outputs of {len({stage for stage, _ in first})} stages")
        changed = differing(committed, first)
        if changed:
            print(
                f"note: {len(changed)} outputs differ from the committed dvc.lock; the first is {': '.join(changed[0])}"
            )
        else:
            print("same as in the committed dvc.lock")
    return bool(first) and not unlike


def differing(first: dict[Key, str], second: dict[Key, str]) -> list[Key]:
    """The keys that are missing on one side or have different values, in their order."""
    return [key for key in {**first, **second} if first.get(key) != second.get(key)]


def hashes(clone: Path) -> Hashes:
    """All outputs in dvc.lock; none if there is no such file yet."""
    lock = clone / "dvc.lock"
    stages = YAML(typ="safe").load(lock.read_text())["stages"] if lock.exists() else {}
    return {(name, out["path"]): out["md5"] for name, stage in stages.items() for out in stage.get("outs", [])}


def _files(clone: Path, md5: str) -> dict[str, str]:
    """The files of a folder in DVC's cache, with their hashes; none for a single file."""
    if not md5.endswith(".dir"):
        return {}
    listing = clone / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    return {file["relpath"]: file["md5"] for file in json.loads(listing.read_text())}


def _environment(work: Path) -> dict[str, str]:
    """This interpreter first on PATH, and no settings of the user: a shared cache would hide differences."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_TRACKING"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    none = str(work / "no-settings")
    return {**kept, "PATH": path, "DVC_GLOBAL_CONFIG_DIR": none, "DVC_SYSTEM_CONFIG_DIR": none}


if __name__ == "__main__":
    run(verify)
