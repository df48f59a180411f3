"""The pipeline in a clone of HEAD: from nothing, with nothing to do, and after a change of one model."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.common import FOLDER, Result, Round, Row, Table, Target, interleaved, log
from stages.runtime.errors import UserError

WORK = ("training", "prediction", "extraction")  # the parts that are not overhead
MODEL = "mnist_dense"  # the model that changes


def measure(quick: bool) -> Result:
    """All models; with `quick` one model."""
    return compare([MODEL] if quick else [], rounds=2 if quick else 7)


def compare(models: list[str], rounds: int) -> Result:
    """Time the pipeline of `models`, or of all models if the list is empty."""
    with tempfile.TemporaryDirectory() as folder:
        clone, times = Path(folder, "clone"), Path(folder, "times.jsonl")
        prepare(clone, models)
        _time_stages(clone)

        def dvc(*arguments: str) -> Round:
            return run_in(clone, times, "dvc", *arguments)

        whole = dvc("repro", "--force").seconds
        stages = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()]
        log(f"from nothing: {len(stages)} stages in {whole:.0f} s")
        idle = interleaved({"dvc status": lambda: dvc("status"), "dvc repro": lambda: dvc("repro")}, rounds)
        changed = Row(f"one model changed, {MODEL}", {"dvc repro": []})
        for epochs in range(3, 3 + min(rounds, 3)):
            with changed_params(clone) as values:
                values["models"][MODEL]["epochs"] = epochs
            changed.values["dvc repro"].append(dvc("repro").seconds)
    nothing = Row("nothing to do", {name: [one.seconds for one in results] for name, results in idle.items()})
    parts: defaultdict[str, float] = defaultdict(float)
    for stage in stages:
        for part, seconds in stage["parts"].items():
            parts[part] += seconds
        parts[f"rest of {stage['stage']}"] += stage["whole"] - sum(stage["parts"].values())
    parts["DVC, and the start and end of its processes"] = whole - sum(parts.values())
    overhead = 100 * (1 - sum(parts[part] for part in WORK) / whole)
    targets = [
        Target("`dvc repro` with nothing to do, seconds", "≤ 2.5", nothing.medians["dvc repro"]),
        Target("`dvc repro` with nothing to do against `dvc status`", "≤ 1.5", nothing.ratio("dvc repro")),
        Target("overhead of the whole pipeline on synthetic data, % of its time", "≤ 40", overhead),
    ]
    table = Table("Whole commands", "s", [nothing, changed, Row("from nothing", {"dvc repro": [whole]})])
    breakdown = Table("From nothing: breakdown of the time", "s", [])
    by_time = sorted(parts.items(), key=lambda part: -part[1])
    breakdown.rows = [Row(part, {"time": [spent]}, {"share": f"{spent / whole:.1%}"}) for part, spent in by_time]
    return Result([table, breakdown], targets)


def prepare(clone: Path, models: list[str]) -> None:
    """Clone HEAD; keep only `models` if any are named."""
    subprocess.run(["git", "clone", "--quiet", FOLDER.parent, clone], check=True)
    if models:
        with changed_params(clone) as values:
            _keep(values, models)


def _time_stages(clone: Path) -> None:
    """Have the clone's stages report how long their parts take."""
    shutil.copytree(FOLDER, clone / "benchmarks", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    stages = clone / "dvc.yaml"
    stages.write_text(
        stages.read_text(encoding="utf-8").replace("${python} stages.", "python -m benchmarks.timed stages."),
        encoding="utf-8",
    )


def _keep(values: dict[str, Any], models: list[str]) -> None:
    """Remove everything from params.yaml that none of `models` needs."""
    values["models"] = {name: values["models"][name] for name in models}
    values["gates"] = {name: gate for name, gate in values["gates"].items() if name in models}
    used = {model["dataset"] for model in values["models"].values()}
    values["features"] = {name: features for name, features in values["features"].items() if name in used}
    used |= {features["dataset"] for features in values["features"].values()}
    values["datasets"] = {name: dataset for name, dataset in values["datasets"].items() if name in used}
    values["not_in_pretraining"] = {
        name: entry for name, entry in values["not_in_pretraining"].items() if name in values["datasets"]
    }
    backbones = {features["backbone"] for features in values["features"].values()}
    values["weights"] = {name: weights for name, weights in values["weights"].items() if name in backbones}


@contextmanager
def changed_params(clone: Path) -> Iterator[Any]:
    """The values of the clone's params.yaml; changes in the block are written."""
    yaml = YAML()
    yaml.width = 4096
    path = clone / "params.yaml"
    values = yaml.load(path)
    yield values
    yaml.dump(values, path)


def run_in(clone: Path, times: Path, *command: str) -> Round:
    """Run a command in the clone with this interpreter as `python` and without the user's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    no_settings = str(times.with_name("no-settings"))
    environment = {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_GLOBAL_CONFIG_DIR": no_settings,
        "DVC_SYSTEM_CONFIG_DIR": no_settings,
        "BENCHMARK_TIMES": str(times),
    }
    start = time.perf_counter()
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, encoding="utf-8")
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise UserError(f"benchmarks: {' '.join(command)} failed:\n{lines}")
    return Round(seconds, None)
