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
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from stages.config import params
from stages.config.messages import lookup
from stages.config.schema import Params
from stages.reporting import measured
from stages.reporting.environments import describe
from stages.reporting.results import published_results
from stages.runtime import dvc_lock, paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.numerics import machine
from tools.compare.base import configure, python_environment, snapshot
from tools.lib.exclusive import exclusive
from tools.lib.git import git
from tools.lib.params_file import rewrite
from tools.lib.probes import probe

SEEDS = (42, 1, 2)
MANY_SEEDS_UP_TO = 600  # seconds: a model that trains longer gets the first seed alone, unless seeds are named
WORKTREE = Path(".dvc/tmp/published")
TABLES = [Path("README.md"), paths.MEASURED / "README.md"]
BEGIN, END = "<!-- measured results: make measure -->\n", "<!-- end of measured results -->\n"


def measure(models: str, seeds: str, whole: str) -> None:
    """Train what is missing, or was trained with other code or params, and write the tables.

    Args:
        models: names with spaces between; empty for all.
        seeds: numbers with spaces between; empty for the usual ones, and those that have a result.
        whole: "1": train on the whole training split, without validation images.

    Raises:
        UserError: there is no such model, a seed is not a number, no images validate, a stage fails, or this runs
            already.
    """
    values = params.load()
    for name in models.split():
        lookup(values.models, name, "models")
    if not values.train.validation_fraction and not whole:
        raise UserError(
            "params.yaml: train.validation_fraction: 0 leaves no images to validate; set it to 0.1, or measure with "
            "WHOLE=1"
        )
    for text in seeds.split():
        if not text.isdecimal() or int(text) >= 2**32:
            raise UserError(f"SEED: {text!r}: it should be a whole number from 0 to {2**32 - 1}")
    # A second run would change the seed under the stages of this one
    message = "make measure runs in this clone already; wait for it: MODEL and SEED take several, with spaces between"
    with exclusive(WORKTREE.with_suffix(".lock"), message):
        names = models.split() or list(values.models)
        digests = update_probes(names)
        folder = _worktree()
        for name, seed, on_whole in _trainings(names, [*map(int, seeds.split())], whole == "1"):
            _measure(folder, name, seed, on_whole, digests[name])
            write_tables()
        write_limits()


def update_probes(names: list[str]) -> dict[str, str]:
    """Probe the trainings of models with today's code; store and return their digests."""
    digests = {stage.partition("@")[2]: digest for stage, digest in probe([f"train@{name}" for name in names]).items()}
    stored = json.loads(paths.PROBES.read_text(encoding="utf-8")) if paths.PROBES.exists() else {}
    with atomic_write(paths.PROBES) as part:
        part.write_text(json.dumps(stored | digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return digests


def write_tables() -> None:
    """Write the table of measured results into each of `TABLES` that has the two marks."""
    text = measured.markdown(measured.read(), measured.read(measured.WHOLE), published_results(), measured.outdated())
    for path in TABLES:
        before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        if begin:
            rewrite(path, f"{before}{BEGIN}\n{text}\n\n{END}{rest.partition(END)[2]}")


def write_limits() -> None:
    """Write `min_accuracy` of the gates in params.yaml: the mean validation accuracy less three standard deviations.

    With fewer than three seeds, the standard deviation is that of a proportion of so many validation images.
    """
    text = paths.PARAMS.read_text(encoding="utf-8")
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


def _trainings(names: list[str], seeds: list[int], whole: bool) -> Iterator[tuple[str, int, bool]]:
    """The model, the seed, and whether it is on the whole split, of each training, one after the other is done.

    If no seed is named, those that have a result are among them: a row is marked until all of its seeds are repeated.
    """
    stored = {int(path.name.removeprefix("seed-")) for path in paths.MEASURED.rglob("seed-*")}
    for seed in seeds or [*SEEDS, *sorted(stored - {*SEEDS})]:
        for name in names:
            usual = seed == SEEDS[0] or (seed in SEEDS and _mean_seconds(name) <= MANY_SEEDS_UP_TO)
            if seeds or usual or name in measured.read_facts(_folder(seed, whole)):
                yield name, seed, whole
            if not seeds and not whole and name in measured.read_facts(_folder(seed, True)):
                yield name, seed, True


def _measure(folder: Path, name: str, seed: int, whole: bool, digest: str) -> None:
    """Train and evaluate a model with a seed, and copy its results here, unless they stand already."""
    yaml = YAML()
    yaml.width = 4096
    content = yaml.load(folder / paths.PARAMS)
    content["seed"] = seed
    content["train"]["validation_fraction"] = 0 if whole else params.load().train.validation_fraction
    yaml.dump(content, folder / paths.PARAMS)
    facts = measured.read_facts(_folder(seed, whole))
    values = params.load(folder / paths.PARAMS)
    records = paths.records(values.resolved_models[name].dataset)
    _dvc(folder, "repro", _data_stage(values, name))
    causes = {
        "params": measured.training_params(values, name),
        "records": dvc_lock.output_hashes(folder / paths.LOCK).get(records.as_posix()),
        "probe": digest,
    }
    if name in facts and facts[name] | causes == facts[name]:
        return
    start, cpu_start = time.monotonic(), _cpu_seconds()
    # Forced: the run cache may have the results of other packages or of another machine, and has no times
    _dvc(folder, "repro", "--force", "--single-item", f"train@{name}")
    seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - cpu_start  # after a kill: since it resumed
    _dvc(folder, "repro", f"evaluate@{name}")
    target = _folder(seed, whole)
    for kind in ("metrics", "history"):
        file = next((folder / "reports" / kind).glob(f"{name}.*"))
        (target / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / kind)
    facts[name] = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "machine": describe(machine()),
        **causes,
    }
    with atomic_write(target / "runs.json") as part:
        part.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _folder(seed: int, whole: bool) -> Path:
    return (measured.WHOLE if whole else paths.MEASURED) / f"seed-{seed}"


def _data_stage(values: Params, name: str) -> str:
    """The last of the stages that make the data of a model; DVC runs those before it."""
    dataset = values.models[name].dataset
    if dataset in values.pretrained:
        return f"join@{dataset}"
    return f"extract@{dataset}" if dataset in values.features else values.preprocess_stage(dataset)


def _dvc(folder: Path, *arguments: str) -> str:
    """Run a DVC command, and pass on and return what it prints."""
    environment = python_environment(folder, "real")
    printed = ""
    with subprocess.Popen(
        ["dvc", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, encoding="utf-8"
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
    run(measure, "models", "seeds", "whole")
