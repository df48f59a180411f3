"""`make base BASE=main`: reproduce a revision on this machine, so that review, plots and gate compare like with like.

The revision runs in a Git worktree under .dvc/tmp that shares DVC's cache: the run cache provides stages with the same
inputs as here. A revision with other packages, which DVC does not see, has a run cache of its own. The results become a
commit under refs/reproduced, which `dvc metrics diff` can name, too.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dvc.config import Config
from dvc.repo import Repo
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from stages.reporting.environments import describe
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.numerics import machine
from tools.lib.git import git
from tools.lib.revision import REPRODUCED, Revision, reference

KEPT = 20  # reproductions; older ones are dropped
RESULTS = ["dvc.lock", "reports/metrics", "reports/history", "reports/plots"]  # those that Git holds
IDENTITY = {f"GIT_{who}_{what}": "reproduced" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
DATES = {f"GIT_{who}_DATE": "2000-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}  # same files, same commit


def base(rev: str) -> None:
    """Reproduce all models of a revision."""
    reproduce(Revision(rev).commit, rev)


def reproduce(commit: str, name: str, source: str | None = None, models: Sequence[str] = ()) -> None:
    """Run the pipeline of a commit up to `evaluate` and keep its results as a commit; do nothing if they are there.

    Args:
        commit: the commit.
        name: what messages call the commit.
        source: the value for `source` in params.yaml; None leaves the file as it is.
        models: the models to run, as far as the commit has them; empty for all.
    """
    # Before the look-up, so that what a caller has just reproduced stays.
    for old in git("for-each-ref", "--sort=-committerdate", "--format=%(refname)", REPRODUCED).split()[KEPT:]:
        git("update-ref", "-d", old)
    message = "\n\n".join([describe(machine()), " ".join(models) or "all models"])
    ref = reference(commit, source)
    if git("for-each-ref", "--format=%(contents)", ref) == message:
        print(f"{name}: already reproduced on this machine", file=sys.stderr)
        return
    with _worktree(commit, ref) as folder:
        if not (folder / paths.PARAMS).exists():
            raise UserError(f"{name}: no {paths.PARAMS}; name a revision with a pipeline")
        # Otherwise a committed result could pass for a result of this machine.
        git("rm", "-r", "--quiet", "--ignore-unmatch", "--", *RESULTS, cwd=folder)
        known = configure(folder, source)
        targets = [f"evaluate@{model}" for model in models if model in known] if models else ["evaluate"]
        if not targets:
            raise UserError(f"{name}: has none of {', '.join(models)}; name models that it has")
        done = subprocess.run(
            ["dvc", "repro", *targets], cwd=folder, env=python_environment(folder, name), stdout=sys.stderr
        )
        if done.returncode:
            raise UserError(f"{name}: dvc repro failed on this revision, see above; compare with another revision")
        git("add", "--all", "--", paths.PARAMS, *(path for path in RESULTS if (folder / path).exists()), cwd=folder)
        tree = git("write-tree", cwd=folder)
        git("update-ref", ref, git("commit-tree", tree, "-p", commit, "-m", message, environment=IDENTITY))
    print(f"{name}: reproduced on this machine", file=sys.stderr)


def snapshot() -> str:
    """A commit with all files of the workspace that Git has or would add."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git("read-tree", "HEAD", environment=index)
        git("add", "--all", environment=index)
        tree = git("write-tree", environment=index)
    return git("commit-tree", tree, "-p", "HEAD", "-m", "workspace", environment=IDENTITY | DATES)


@contextmanager
def _worktree(commit: str, ref: str) -> Iterator[Path]:
    """The project's folder in a worktree of a commit, for the time of a block."""
    worktree = Path(".dvc/tmp", *Path(ref).parts[1:]).absolute()
    for left in filter(Path.is_dir, worktree.parent.glob("*")):  # by processes that were killed
        with suppress(Timeout, UserError), FileLock(f"{left}.lock", timeout=0):
            shutil.rmtree(left, ignore_errors=True)
            git("worktree", "remove", "--force", "--force", left)
    with FileLock(f"{worktree}.lock"):  # two reproductions of the same commit would remove each other's worktree
        shutil.rmtree(worktree, ignore_errors=True)  # of one that was killed meanwhile, which Git still lists
        git("worktree", "add", "--quiet", "--force", "--detach", worktree, commit)
        try:
            yield worktree / git("rev-parse", "--show-prefix")
        finally:
            git("worktree", "remove", "--force", worktree)


def configure(folder: Path, source: str | None) -> list[str]:
    """Give the worktree this clone's DVC settings and cache, and the value for `source`; return its models' names."""
    own = Config(str(Path(".dvc").absolute())).load_one("local")
    with Config(str(folder / ".dvc")).edit("local") as local:
        local.update(own)
        local["cache"]["dir"] = str(_cache(folder))
    yaml = YAML()
    yaml.width = 4096
    values = yaml.load(folder / paths.PARAMS)
    if source:
        values["source"] = source
        yaml.dump(values, folder / paths.PARAMS)
    return list(values.get("models", {}))


def _cache(folder: Path) -> Path:
    """DVC's cache for a worktree: with other packages than here, the same files, but a run cache of its own."""
    shared = Path(Repo().cache.local_cache_dir).absolute()
    lock = _packages(folder)
    if not lock:
        return shared
    own = Path(".dvc/tmp/caches", hashlib.sha256(lock.read_bytes() + bytes(shared)).hexdigest()[:16]).absolute()
    for made in (own, shared / "files"):
        made.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (own / "files").symlink_to(shared / "files")
    return own


def _packages(folder: Path) -> Path | None:
    """The file that locks the packages of a worktree; None if they are those of this clone."""
    remembered = Path(".venv/requirements-name")
    name = remembered.read_text(encoding="utf-8").strip() if remembered.exists() else "requirements.txt"
    lock = folder / name
    return lock if lock.exists() and lock.read_bytes() != Path(name).read_bytes() else None


def python_environment(folder: Path, name: str) -> dict[str, str]:
    """This interpreter, or one with the revision's own packages if those differ; nothing is logged to a server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_EXP", "MLFLOW_TRACKING"))}
    binaries = Path(sys.executable).parent
    if lock := _packages(folder):
        python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
        command = ["make", "--silent", "setup", f"PYTHON={python}", f"REQUIREMENTS={lock.relative_to(folder)}"]
        if subprocess.run(command, cwd=folder, env=kept, stdout=sys.stderr).returncode:
            raise UserError(f"{name}: make setup failed on this revision, see above")
        binaries = folder / ".venv/bin"
    return {**kept, "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]])}


if __name__ == "__main__":
    run(base, "base")
