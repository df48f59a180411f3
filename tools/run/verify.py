"""`make verify`: run the pipeline from scratch in two clones of HEAD and compare all outputs of all stages."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from stages.runtime import paths
from stages.runtime.cli import run
from tools.lib.git import git


def verify() -> None:
    """Exit with 1 if a stage fails or an output differs; both clones are kept then."""
    if git("status", "--porcelain", "--untracked-files=no"):
        print("note: verifying HEAD, without the uncommitted changes")
    work = Path(tempfile.mkdtemp(prefix="verify-"))
    names = ["first", "second"]
    clones = [work / name / git("rev-parse", "--show-prefix") for name in names]  # of the project in its repository
    try:
        for name in names:
            git("clone", "--quiet", git("rev-parse", "--show-toplevel"), work / name)
        committed = hashes(clones[0])
        # Side by side: most of a stage is TensorFlow starting in one thread.
        processes = [_reproduce(clone) for clone in clones]
        codes = [process.wait() for process in processes]
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    if any(codes) or not compare(clones, committed):
        sys.exit(f"not verified; the clones are kept in {work}")
    shutil.rmtree(work)


def compare(clones: list[Path], committed: dict[str, str]) -> bool:
    """Print the outputs that differ between two clones, and from `committed`; return whether the clones agree."""
    first, second = map(hashes, clones)
    for path in differing(first, second):
        print(f"differs: {path}", flush=True)
        subprocess.run(["diff", "--recursive", "--brief", *(clone / path for clone in clones)])
    if first == second:
        changed = differing(committed, first)
        print(f"same in both clones: {len(first)} outputs")
        print(f"other than in the committed dvc.lock: {', '.join(changed) or 'none'}")
    return first == second


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """The outputs that are missing on one side or have different hashes."""
    return sorted({path for path, _ in first.items() ^ second.items()})


def hashes(clone: Path) -> dict[str, str]:
    """The hash of each output in dvc.lock."""
    stages = YAML(typ="safe").load((clone / paths.LOCK).read_text(encoding="utf-8"))["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def _reproduce(clone: Path) -> "subprocess.Popen[bytes]":
    """Run every stage with this interpreter and without settings of the user: a shared cache would hide differences."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_TRACKING"))}
    none = str(clone / "no-settings")
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_GLOBAL_CONFIG_DIR": none,
        "DVC_SYSTEM_CONFIG_DIR": none,
    }
    # Forced: DVC would not run a stage whose outputs are all in Git.
    return subprocess.Popen(["dvc", "repro", "--force"], cwd=clone, env=kept | own)


if __name__ == "__main__":
    run(verify)
