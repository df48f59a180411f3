"""`make measure`: train models on the real data with several seeds and write reports/measured/.

The trainings run in a Git worktree under .dvc/tmp that shares DVC's cache: a killed run resumes where it was.
"""

import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.config import params
from stages.config.messages import lookup
from stages.reporting import measured as measured
from stages.reporting.environments import describe
from stages.reporting.results import published_results
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.numerics import machine
from tools.compare.base import configure, python_environment, snapshot
from tools.lib.exclusive import exclusive
from tools.lib.git import git
from tools.lib.params_file import rewrite

SEEDS = (42, 1, 2)
MANY_SEEDS_UP_TO = 600  # seconds: a model that trains longer gets the first seed alone, unless seeds are named
WORKTREE = Path(".dvc/tmp/published")
TABLES = [Path("README.md"), paths.MEASURED / "README.md"]
BEGIN, END = "<!-- measured results: make measure -->\n", "<!-- end of measured results -->\n"


def published(models: str, seeds: str) -> None:
    """Train what is missing, or was trained with other code or params, and write the tables.

    Args:
        models: names with spaces between; empty for all.
        seeds: numbers with spaces between; empty for the usual ones.

    Raises:
        UserError: there is no such model, a seed is not a number, a stage fails, or this runs already.
    """
    known = params.load().models
    for name in models.split():
        lookup(known, name, "models")
    for text in seeds.split():
        if not text.isdecimal() or int(text) >= 2**32:
            raise UserError(f"SEED: {text!r}: it should be a whole number from 0 to {2**32 - 1}")
    # A second run would change the seed under the stages of this one
    message = "make measure runs in this clone already; wait for it: MODEL and SEED take several, with spaces between"
    with exclusive(WORKTREE.with_suffix(".lock"), message):
        folder = _worktree()
        for seed in map(int, seeds.split() or SEEDS):
            for name in models.split() or known:
                if seeds or seed == SEEDS[0] or _mean_seconds(name) <= MANY_SEEDS_UP_TO:
                    _measure(folder, name, seed)
                    write_tables()
        write_limits()


def write_tables() -> None:
    """Write the table of measured results into each of `TABLES` that has the two marks."""
    text = measured.markdown(measured.read(), published_results(), measured.outdated())
    for path in TABLES:
        before, begin, rest = path.read_text().partition(BEGIN)
        if begin:
            rewrite(path, f"{before}{BEGIN}\n{text}\n\n{END}{rest.partition(END)[2]}")


def write_limits() -> None:
    """Write `min_accuracy` of the gates in params.yaml: the mean validation accuracy less three standard deviations.

    With fewer than three seeds, the standard deviation is that of a proportion of so many validation images.
    """
    text = paths.PARAMS.read_text()
    for name, result in measured.read().items():
        mean, spread = result.mean("validation_accuracy"), result.spread("validation_accuracy")
        if spread is None or len(result.metrics) < 3:
            spread = math.sqrt(mean * (1 - mean) / result.metrics[0]["validation_images"])
        limit = max(0.001, math.floor(1000 * (mean - 3 * spread)) / 1000)  # of seeds far apart, it would be negative
        text = re.sub(rf"(?m)(^  {name}: {{min_accuracy: )[0-9.]+", rf"\g<1>{limit}", text)
    rewrite(paths.PARAMS, text)


def _worktree() -> Path:
    """The project in a worktree of the workspace's state, with the real data as its source."""
    commit = snapshot()
    if (WORKTREE / ".git").exists():
        git("checkout", "--quiet", "--force", "--detach", commit, cwd=WORKTREE)  # keeps data, which Git ignores
    else:
        shutil.rmtree(WORKTREE, ignore_errors=True)
        git("worktree", "add", "--quiet", "--force", "--detach", WORKTREE.absolute(), commit)
    folder = WORKTREE.absolute() / git("rev-parse", "--show-prefix")
    configure(folder, "real")
    return folder


def _measure(folder: Path, name: str, seed: int) -> None:
    """Train and evaluate a model with a seed, and copy its results here."""
    yaml = YAML()
    yaml.width = 4096
    values = yaml.load(folder / paths.PARAMS)
    values["seed"] = seed
    yaml.dump(values, folder / paths.PARAMS)
    target = paths.MEASURED / f"seed-{seed}"
    facts_path = target / "runs.json"
    facts = json.loads(facts_path.read_text()) if facts_path.exists() else {}
    data_stages = _data_stages(values, name)
    _dvc(folder, "repro", data_stages[-1])
    start, cpu_start = time.monotonic(), _cpu_seconds()
    trained = f"Running stage 'train@{name}'" in _dvc(folder, "repro", f"train@{name}")
    seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - cpu_start  # after a kill: since it resumed
    _dvc(folder, "repro", f"evaluate@{name}")
    if trained or name not in facts:  # else the time of the run that trained it stands
        facts[name] = {
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds, 1),
            "machine": describe(machine()),
        }
    for kind in ("metrics", "history"):
        file = next((folder / "reports" / kind).glob(f"{name}.*"))
        (target / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / kind)
    _keep_provenance(folder / paths.LOCK, target / paths.LOCK, [*data_stages, f"train@{name}", f"evaluate@{name}"])
    with atomic_write(facts_path) as part:
        part.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def _data_stages(values: Any, name: str) -> list[str]:
    """The stages that make the data of a model, in their order."""
    dataset = values["models"][name]["dataset"]
    if start := (values.get("pretrained") or {}).get(dataset):
        return [*_data_stages(values, start["head"]), f"train@{start['head']}", f"join@{dataset}"]
    features = (values.get("features") or {}).get(dataset)
    images = features["dataset"] if features else dataset
    stage = "preprocess_folder" if images in (values.get("folders") or {}) else "preprocess"
    return [f"{stage}@{images}", *([f"extract@{dataset}"] if features else [])]


def _keep_provenance(lock: Path, target: Path, stages: list[str]) -> None:
    """Copy entries of a dvc.lock; the target's other entries belong to other models of the same seed."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    kept: Any = yaml.load(target.read_text()) if target.exists() else {"schema": "2.0", "stages": {}}
    made = yaml.load(lock.read_text())["stages"]
    kept["stages"].update({stage: made[stage] for stage in stages})
    yaml.dump(kept, target)


def _dvc(folder: Path, *arguments: str) -> str:
    """Run a DVC command, and pass on and return what it prints."""
    environment = python_environment(folder, "real")
    printed = ""
    with subprocess.Popen(
        ["dvc", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            printed += line
    if process.returncode:
        raise UserError(f"dvc {' '.join(arguments)} failed in {os.path.relpath(folder)}, see above; run this again")
    return printed


def _cpu_seconds() -> float:
    """CPU time of all processes that this one has waited for, and of theirs: hardly changed by what else runs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _mean_seconds(name: str) -> float:
    result = measured.read().get(name)
    return result.mean_fact("seconds") if result else 0.0


if __name__ == "__main__":
    run(published, "models", "seeds")
