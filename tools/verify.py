"""`make verify`: run the pipeline from nothing in two clones of HEAD and compare every output of every stage."""

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

Hashes = dict[tuple[str, str], str]  # (stage, path of an output) → MD5, of a folder's listing with ".dir" behind it
Key = TypeVar("Key")


def main() -> None:
    """Exit with 1 if a stage fails or an output differs; both clones and their logs are kept then."""
    root = Path(__file__).parents[1]
    if _git("-C", root, "status", "--porcelain", "--untracked-files=no"):
        print("note: HEAD is verified, without the uncommitted changes")
    work = Path(tempfile.mkdtemp(prefix="verify-"))
    clones = [work / "first", work / "second"]
    try:
        for clone in clones:
            _git("clone", "--quiet", root, clone)
        committed = hashes(clones[0])
        same = reproduce(clones) and report(clones, committed)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    if not same:
        sys.exit(f"not verified; clones and logs are kept in {work}")
    shutil.rmtree(work)


def reproduce(clones: list[Path]) -> bool:
    """Run every stage in every clone, the clones side by side: most of a stage is TensorFlow starting in one thread.

    Each clone's output goes to a file beside it. One that fails ends the others, and the end of its log is printed.
    """
    environment = _environment(clones[0].parent)
    listing = ["dvc", "stage", "list", "--name-only"]
    stages = subprocess.run(listing, cwd=clones[0], env=environment, check=True, stdout=subprocess.PIPE).stdout.split()
    # Forced: where all outputs are in Git, DVC would take the committed ones for granted.
    command = ["dvc", "repro", "--force"]
    runs: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        for clone in clones:
            log = clone.with_suffix(".log")
            with log.open("wb") as output:
                # In a session of its own, so that DVC and the stage that it runs end together.
                runs[log] = subprocess.Popen(
                    command, cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
        interval = 1 if sys.stderr.isatty() else 30
        with tqdm(total=len(clones) * len(stages), desc="two clones", unit="stage", mininterval=interval) as bar:
            while None in [run.poll() for run in runs.values()] and not any(run.returncode for run in runs.values()):
                time.sleep(1)
                bar.update(sum(log.read_bytes().count(b"Running stage") for log in runs) - bar.n)
        failed = [log for log, run in runs.items() if run.returncode]
    finally:
        for run in runs.values():
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGTERM)
                run.wait()
    for path in failed:
        print(f"{path}: dvc repro failed:", *path.read_text(errors="replace").splitlines()[-15:], sep="\n  ")
    return not failed


def report(clones: list[Path], committed: Hashes) -> bool:
    """Print which outputs differ between two clones, and between them and `committed`; whether the clones agree."""
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
        print(f"the same in both clones: {len(first)} outputs of {len({stage for stage, _ in first})} stages")
        changed = differing(committed, first)
        if changed:
            print(f"note: the committed dvc.lock has others for {len(changed)}, beginning with {': '.join(changed[0])}")
        else:
            print("the same as in the committed dvc.lock")
    return bool(first) and not unlike


def differing(first: dict[Key, str], second: dict[Key, str]) -> list[Key]:
    """The keys that the two do not have in common with the same value, in their order."""
    return [key for key in {**first, **second} if first.get(key) != second.get(key)]


def hashes(clone: Path) -> Hashes:
    """Every output that dvc.lock names; none if there is no such file yet."""
    lock = clone / "dvc.lock"
    stages = YAML(typ="safe").load(lock.read_text())["stages"] if lock.exists() else {}
    return {(name, out["path"]): out["md5"] for name, stage in stages.items() for out in stage.get("outs", [])}


def _files(clone: Path, md5: str) -> dict[str, str]:
    """The files of a folder that DVC's cache holds, with their hashes; of a single file none."""
    if not md5.endswith(".dir"):
        return {}
    listing = clone / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    return {file["relpath"]: file["md5"] for file in json.loads(listing.read_text())}


def _environment(work: Path) -> dict[str, str]:
    """This interpreter first on PATH, and no settings of the user's: a shared cache would hide differences."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_TRACKING"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    none = str(work / "no-settings")
    return {**kept, "PATH": path, "DVC_GLOBAL_CONFIG_DIR": none, "DVC_SYSTEM_CONFIG_DIR": none}


def _git(*arguments: str | Path) -> str:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} failed")
