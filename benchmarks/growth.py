"""Time and memory of the stages that stream: whole processes at once, four and sixteen times the sample's size."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import FOLDER, Goal, Result, Row, Table, log
from stages import params, sample
from stages.console import UserError

SIZES = (1, 4, 16)
FLAT = 1.1  # of the memory at four times the sample's size: what a heap varies by
LARGEST = 1.5  # GiB


class Process(NamedTuple):
    """What a process took."""

    seconds: float
    memory: float  # MiB, at its peak


def measure(quick: bool) -> Result:
    """A dataset of each format, and the first feature set; with `quick` one small dataset."""
    values = params.load()
    formats = {dataset.format: name for name, dataset in reversed(values.datasets.items())}
    if quick:
        return compare([formats["idx"]], [], (1, 4))
    return compare(list(formats.values()), list(values.features)[:1], SIZES)


def compare(datasets: list[str], features: list[str], sizes: tuple[int, ...]) -> Result:
    """Preprocess `datasets` and extract `features` at so many times the sample's size."""
    values = params.load()
    seconds = Table("Time, the start of the process included", "ms an image", [])
    memory = Table("Peak memory", "MiB", [])
    stages = [("preprocess", name, name) for name in datasets]
    stages += [("extract", name, values.features[name].dataset) for name in features]
    for stage, name, dataset in stages:
        row, peaks = Row(f"{stage} {name}", {}), Row(f"{stage} {name}", {})
        for times in sizes:
            size = values.datasets[dataset].sample
            images = times * (size.train + size.test)
            with tempfile.TemporaryDirectory() as folder:
                _prepare(Path(folder), dataset, times)
                if stage == "extract":
                    _run(Path(folder), "preprocess", dataset)
                    backbone = values.features[name].backbone
                    sample.draw(backbone, values.weights[backbone], Path(folder, "data", "raw", backbone))
                found = _run(Path(folder), stage, name)
            row.values[f"{times}×"] = [found.seconds / images * 1000]
            peaks.values[f"{times}×"] = [found.memory]
            log(f"{row.name}, {images:,} images: {found.seconds:.1f} s, {found.memory:,.0f} MiB")
        seconds.rows.append(row)
        memory.rows.append(peaks)
    largest = max(max(row.medians.values()) for row in memory.rows)
    goals = [Goal("peak memory of any of them, GiB", f"≤ {LARGEST}", largest / 1024)]
    if len(sizes) > 2:
        growth = max(row.medians[f"{sizes[-1]}×"] / row.medians[f"{sizes[-2]}×"] for row in memory.rows)
        goals.append(Goal(f"peak memory at {sizes[-1]}× as a multiple of that at {sizes[-2]}×", f"≤ {FLAT}", growth))
    return Result([memory, seconds], goals)


def _prepare(folder: Path, name: str, times: int) -> None:
    """A project with archives of so many times the sample's size."""
    dataset = params.load().datasets[name]
    size = params.SampleSize(train=times * dataset.sample.train, test=times * dataset.sample.test)
    shutil.copy("params.yaml", folder)
    sample.draw(name, dataset.model_copy(update={"sample": size}), folder / "data" / "raw" / name)


def _run(folder: Path, stage: str, name: str) -> Process:
    """Run a stage in `folder`."""
    start = time.perf_counter()
    command = [sys.executable, "-m", f"stages.{stage}", name]
    path = {"PYTHONPATH": str(FOLDER.parent)}
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **path}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"benchmarks: {' '.join(command[1:])} failed; see what it wrote above")
    return Process(time.perf_counter() - start, usage.ru_maxrss / 1024)
