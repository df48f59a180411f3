"""Time and memory of the stages that stream their input: processes on 1, 4 and 16 times the synthetic dataset."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import FOLDER, Result, Row, Table, Target, log
from benchmarks.synthetic import enlarged, write_archives, write_weights
from stages.config import params
from stages.runtime.errors import UserError

SIZES = (1, 4, 16)
MAX_GROWTH = 1.1  # of the memory from 4× to 16×: a heap alone varies by this much
MAX_MEMORY = 1.5  # GiB


class Process(NamedTuple):
    """Time and memory of a process."""

    seconds: float
    memory: float  # MiB, at its peak


def measure(quick: bool) -> Result:
    """A dataset of each format, and the first feature set; with `quick` one small dataset."""
    values = params.load()
    formats = {dataset.format: name for name, dataset in reversed(values.datasets.items()) if dataset.synthetic}
    if quick:
        return compare([formats["idx"]], [], (1, 4))
    return compare(list(formats.values()), list(values.features)[:1], SIZES)


def compare(datasets: list[str], features: list[str], sizes: tuple[int, ...]) -> Result:
    """Preprocess `datasets` and extract `features`, at multiples of the size that params.yaml gives."""
    values = params.load()
    seconds = Table("Time, including the start of the process", "ms per image", [])
    memory = Table("Peak memory", "MiB", [])
    stages = [("preprocess", name, name) for name in datasets]
    stages += [("extract", name, values.features[name].dataset) for name in features]
    for stage, name, source in stages:
        row, peaks = Row(f"{stage} {name}", {}), Row(f"{stage} {name}", {})
        for factor in sizes:
            dataset = enlarged(values.datasets[source], factor)
            assert dataset.synthetic
            images = dataset.synthetic.train + dataset.synthetic.test
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy("params.yaml", folder)
                write_archives(Path(folder), source, dataset)
                if stage == "extract":
                    run_stage(Path(folder), "preprocess", source)
                    backbone = values.features[name].backbone
                    write_weights(Path(folder), backbone, values.weights[backbone])
                found = run_stage(Path(folder), stage, name)
            row.values[f"{factor}×"] = [found.seconds / images * 1000]
            peaks.values[f"{factor}×"] = [found.memory]
            log(f"{row.name}, {images:,} images: {found.seconds:.1f} s, {found.memory:,.0f} MiB")
        seconds.rows.append(row)
        memory.rows.append(peaks)
    largest = max(max(row.medians.values()) for row in memory.rows)
    targets = [Target("largest peak memory, GiB", f"≤ {MAX_MEMORY}", largest / 1024)]
    if len(sizes) > 2:
        growth = max(row.medians[f"{sizes[-1]}×"] / row.medians[f"{sizes[-2]}×"] for row in memory.rows)
        targets.append(
            Target(f"peak memory at {sizes[-1]}× divided by that at {sizes[-2]}×", f"≤ {MAX_GROWTH}", growth)
        )
    return Result([memory, seconds], targets)


def run_stage(folder: Path, stage: str, name: str) -> Process:
    """Run a stage in `folder`."""
    start = time.perf_counter()
    command = [sys.executable, "-m", f"stages.{stage}", name]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"benchmarks: {' '.join(command[1:])} failed; see what it printed above")
    return Process(time.perf_counter() - start, usage.ru_maxrss / 1024)
