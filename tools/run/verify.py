"""`make verify`: run the pipeline from scratch in two clones of HEAD and compare all outputs of all stages."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stages.runtime import dvc_lock, paths
from stages.runtime.cli import run
from tools.lib.git import git


def verify() -> None:
    """Exit with 1 if a stage fails or an output differs; both clones are kept then."""
    if git("status", "--porcelain", "--untracked-files=no"):
        print("note: verifying HEAD, without the uncommitted changes")
    work = Path(tempfile.mkdtemp(prefix="verify-"))
    clones = [work / name / git("rev-parse", "--show-prefix") for name in ("first", "second")]
    try:
        for clone in ("first", "second"):
            git("clone", "--quiet", git("rev-parse", "--show-toplevel"), work / clone)
        committed = _hashes(clones[0])
        # Side by side: most of a stage is TensorFlow starting in one thread.
        processes = [_reproduce(clone) for clone in clones]
        codes = [process.wait() for process in processes]
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    first, second = map(_hashes, clones)
    for path in _differing(first, second):
        print(f"differs: {path}", flush=True)
        subprocess.run(["diff", "--recursive", "--brief", *(clone / path for clone in clones)])
    if any(codes) or first != second:
        sys.exit(f"not verified; the clones are kept in {work}")
    print(f"same in both clones: {len(first)} outputs")
    print(f"other than in the committed dvc.lock: {', '.join(_differing(committed, first)) or 'none'}")
    shutil.rmtree(work)


def _differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """The outputs that are missing on one side or have different hashes."""
    return sorted({path for path, _ in first.items() ^ second.items()})


def _hashes(clone: Path) -> dict[str, str]:
    """The hash of each output in dvc.lock."""
    stages = dvc_lock.read(clone / paths.LOCK).get("stages", {})
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
