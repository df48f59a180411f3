"""Stages at the same time: a part of the pipeline with `dvc repro` and with JOBS=2, and eight stages that sleep."""

import resource
import shutil
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.common import Result, Round, Row, Table, interleaved
from benchmarks.pipeline import prepare, run_in

MODELS = [
    "mnist_dense",
    "mnist_cnn",
    "fashion_mnist_dense",
    "fashion_mnist_lenet",
    "cifar10_small_cnn",
    "imagenette_cnn",
]
NAPS = """
stages:
  nap:
    foreach: [a, b, c, d, e, f, g, h]
    do: {cmd: "sleep 5; echo ${item} > nap-${item}", outs: ["nap-${item}"]}
"""
COMMANDS = {
    "dvc repro": ["dvc", "repro"],
    **{f"JOBS={jobs}": ["python", "-m", "tools.run.repro", str(jobs), ""] for jobs in (2, 4, 8)},
}


def measure(quick: bool) -> Result:
    """Six models and the naps in three rounds; with `quick` one model in one round."""
    with tempfile.TemporaryDirectory() as folder:
        naps, sample = Path(folder, "naps"), Path(folder, "sample")
        prepare(naps, MODELS[:1])
        (naps / "dvc.yaml").write_text(NAPS, encoding="utf-8")
        prepare(sample, MODELS[:1] if quick else MODELS)
        rounds = 1 if quick else 3
        slept = interleaved({name: partial(_run, naps, command) for name, command in COMMANDS.items()}, rounds)
        two = list(COMMANDS.items())[:2]
        worked = interleaved({name: partial(_run, sample, command) for name, command in two}, rounds)
    part = f"{1 if quick else len(MODELS)} models"
    seconds = [
        Row(title, {name: [one.seconds for one in results] for name, results in found.items()})
        for title, found in (("8 stages that sleep for 5 s", slept), (part, worked))
    ]
    cpu = Row(part, {name: [one.value for one in results] for name, results in worked.items()})
    return Result([Table("From nothing", "s", seconds), Table("From nothing: all processors", "s", [cpu])], [])


def _run(clone: Path, command: list[str]) -> Round:
    """Run a pipeline of which nothing has run before. The value is the time of all processors, in seconds."""
    for path in ("dvc.lock", "mlflow.db"):
        (clone / path).unlink(missing_ok=True)
    for path in ("data", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(clone / path, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_in(clone, clone.parent / "times.jsonl", *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Round(done.seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
