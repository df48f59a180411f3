"""What the benchmarks share: contenders that take turns, the machine they ran on, and results as JSON."""

import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.config import params
from stages.config.schema import Params
from stages.runtime.errors import UserError
from stages.runtime.numerics import NATIVE_BFLOAT16, processor_flags

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "tensorflow-datasets", "numpy", "pillow", "dvc", "torch")

MATMUL_SIZE, MATMULS = 2048, 8  # of `peak_matmul`
CONTEXT: SpawnContext = multiprocessing.get_context("spawn")  # of contenders

Done = Callable[[Any], None]


class Round(NamedTuple):
    """What a contender did in one round."""

    seconds: float
    value: Any


def real_params() -> Params:
    """params.yaml with `source: real`: the sample's own batch and image sizes are too small to time anything."""
    values = params.load()
    return Params.model_validate({**dict(values), "source": "real"})


@contextmanager
def contender(work: Callable[..., None], *arguments: Any) -> Iterator[Callable[[], Round]]:
    """Start a process that works through one round for each call of the function it gives, and waits between them.

    Every contender has a process of its own, so that contenders share no threads, settings or memory. The process ends
    with the block.

    Args:
        work: a function at the top level of a module. It calls `done(value)` at the end of every round: the call
            returns when the next round starts. It may return when it has no more rounds.
        arguments: passed to `work` after `done`.
    """
    pipe, child_pipe = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_work, args=(child_pipe, work, arguments), daemon=True)
    process.start()
    child_pipe.close()

    def run_round() -> Round:
        try:
            pipe.send(None)
            return Round(*pipe.recv())
        except (EOFError, ConnectionError):
            raise UserError(f"benchmarks: {work.__qualname__} ended early; see what it printed above") from None

    try:
        yield run_round
    finally:
        pipe.close()
        process.join(10)
        process.kill()
        process.join()


def _work(pipe: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    pipe.recv()
    start = time.perf_counter()

    def done(value: Any) -> None:
        nonlocal start
        pipe.send((time.perf_counter() - start, value))
        try:
            pipe.recv()
        except EOFError:  # no further round is wanted
            sys.exit()
        start = time.perf_counter()

    work(done, *arguments)


def interleaved(contenders: Mapping[str, Callable[[], Round]], rounds: int) -> dict[str, list[Round]]:
    """Run the contenders in the order A B A B …, one at a time, so that a busy machine slows all of them alike."""
    results: dict[str, list[Round]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run_round in contenders.items():
            results[name].append(run_round())
    return results


def rates(results: Mapping[str, list[Round]], unit: str) -> dict[str, list[float]]:
    """How many of `unit`, a key of the rounds' values, each contender did per second in each round."""
    return {name: [one.value[unit] / one.seconds for one in rounds] for name, rounds in results.items()}


def geometric_mean(ratios: list[float]) -> float:
    """The geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def peak_matmul() -> float:
    """Multiply large bfloat16 matrices, and return the number of floating-point operations."""
    import tensorflow as tf

    factor = tf.ones((MATMUL_SIZE, MATMUL_SIZE), tf.bfloat16)
    for _ in range(MATMULS):
        product = tf.matmul(factor, factor)
    product[0, 0].numpy()  # wait for the result
    return MATMULS * 2.0 * MATMUL_SIZE**3


def operations(model: "keras.Model") -> tuple[float, float]:
    """Floating-point operations of a model's matrix products for one image: forward, and forward and backward.

    Backward costs twice as much as forward, except in the first of these layers: its inputs need no gradient.
    """
    import keras

    counts = []
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            positions = np.prod(layer.output.shape[1:-1]) if isinstance(layer, keras.layers.Conv2D) else 1
            counts.append(2.0 * float(positions) * float(np.prod(layer.kernel.shape)))
    return sum(counts), 3 * sum(counts) - counts[0]


@dataclass
class Row:
    """One comparison: the measurement of each contender in each round. The first contender is the baseline."""

    name: str
    values: dict[str, list[float]]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.values.items()}

    def ratio(self, name: str) -> float:
        """The median over the rounds of a contender's measurement divided by the baseline's of the same round."""
        baseline = next(iter(self.values.values()))
        return statistics.median(mine / base for mine, base in zip(self.values[name], baseline, strict=True))


@dataclass
class Table:
    """Comparisons in one unit. A value in a unit that ends in "/s" is better when it is larger."""

    title: str
    unit: str
    rows: list[Row]


@dataclass
class Target:
    """A target and the measurement to compare with it."""

    what: str
    target: str  # "≥ 2.0" or "≤ 40"
    measured: float

    @property
    def met(self) -> bool:
        sign, bound = self.target.split()[:2]
        return self.measured >= float(bound) if sign == "≥" else self.measured <= float(bound)


@dataclass
class Result:
    """The result of one benchmark."""

    tables: list[Table]
    targets: list[Target]
    remarks: list[str] = field(default_factory=list)


def machine() -> dict[str, Any]:
    """The kind of machine this is, and its load before the benchmark."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "native_bfloat16": sorted(processor_flags() & NATIVE_BFLOAT16),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that determine the speed."""
    installed = importlib.metadata.distributions(path=[*sys.path, str(FOLDER / ".torch")])  # `make bench-torch`
    found = {package.name.replace("_", "-"): package.version for package in installed}
    return {package: found[package] for package in PACKAGES if package in found}


def content(name: str, result: Result, before: dict[str, Any]) -> dict[str, Any]:
    """The content of results/NAME.json: a result with its medians and ratios, the machine and the versions."""
    tables = [
        {
            "title": table.title,
            "unit": table.unit,
            "rows": [
                {
                    **asdict(row),
                    "medians": row.medians,
                    "ratios": {name: row.ratio(name) for name in list(row.values)[1:]},
                }
                for row in table.rows
            ],
        }
        for table in result.tables
    ]
    targets = [{**asdict(target), "met": target.met} for target in result.targets]
    found = {"command": f"make bench BENCHMARK={name}", "machine": before, "versions": versions()}
    return _rounded({**found, "targets": targets, "remarks": result.remarks, "tables": tables})


def save(name: str, found: dict[str, Any]) -> None:
    """Write results/NAME.json."""
    path = FOLDER / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(name: str) -> dict[str, Any] | None:
    """The content of results/NAME.json, or None."""
    path = FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _rounded(value: Any) -> Any:
    """Four significant digits: no timing is more precise, and differences between files stay short."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what Python code prints."""
    with open(os.devnull, "w", encoding="utf-8") as nothing, redirect_stdout(nothing):
        yield


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """A working directory: records lie relative to it."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def log(line: str) -> None:
    """Print a line on the progress of a benchmark to standard error."""
    print(line, file=sys.stderr, flush=True)
