"""What the topics share: sides that take turns, what they ran on, and results as JSON and Markdown."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.console import UserError
from stages.precision import NATIVE_BFLOAT16, processor_flags

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "tensorflow-datasets", "numpy", "pillow", "dvc", "torch", "ray")

PEAK_SIZE, PEAK_PRODUCTS = 2048, 8  # of the matrix products that the processor's peak is measured by

Done = Callable[[Any], None]


class Turn(NamedTuple):
    """What a side did when it was its turn."""

    seconds: float
    value: Any


@contextmanager
def side(work: Callable[..., None], *arguments: Any) -> Iterator[Callable[[], Turn]]:
    """Give the turns of a process that works when it is its turn and waits otherwise.

    A process of its own, so that neither side's threads, settings or memory are the other's. It ends with the block.

    Args:
        work: a function of a module. It calls `done(value)` at the end of a turn, which comes back at the beginning
            of the next one, and returns when it has no more to do.
        arguments: what it gets after `done`.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, work, arguments), daemon=True)
    process.start()
    theirs.close()

    def turn() -> Turn:
        try:
            pipe.send(None)
            return Turn(*pipe.recv())
        except (EOFError, BrokenPipeError):
            raise UserError(f"benchmarks: {work.__qualname__} ended early; see what it wrote above") from None

    try:
        yield turn
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
        except EOFError:  # nobody wants more of it
            sys.exit()
        start = time.perf_counter()

    work(done, *arguments)


def in_turn(sides: Mapping[str, Callable[[], Turn]], rounds: int) -> dict[str, list[Turn]]:
    """A B A B …: so many turns of each side, one at a time, so that what disturbs the machine disturbs all alike."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, turn in sides.items():
            turns[name].append(turn())
    return turns


def rates(turns: Mapping[str, list[Turn]], what: str) -> dict[str, list[float]]:
    """What a side's turns did of `what`, which their values count, in a second."""
    return {side: [turn.value[what] / turn.seconds for turn in done] for side, done in turns.items()}


def geometric_mean(ratios: list[float]) -> float:
    """Of positive numbers."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def products() -> float:
    """Multiply bfloat16 matrices; the number of floating-point operations."""
    import tensorflow as tf

    factor = tf.ones((PEAK_SIZE, PEAK_SIZE), tf.bfloat16)
    for _ in range(PEAK_PRODUCTS):
        product = tf.matmul(factor, factor)
    product[0, 0].numpy()
    return PEAK_PRODUCTS * 2.0 * PEAK_SIZE**3


def operations(model: "keras.Model") -> tuple[float, float]:
    """Floating-point operations of one image in the products of a model's layers: forward, and forward and backward.

    Backward is twice forward, but for the first of these layers: nothing asks for its inputs' gradient.
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
    """One comparison: what each side reached in each round; the first side is what the others are compared with."""

    name: str
    values: dict[str, list[float]]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        return {side: statistics.median(values) for side, values in self.values.items()}

    def ratio(self, side: str) -> float:
        """The median over the rounds of what `side` reached as a multiple of the first side, in the same round."""
        base = next(iter(self.values.values()))
        return statistics.median(mine / theirs for mine, theirs in zip(self.values[side], base, strict=True))


@dataclass
class Table:
    """Comparisons in one unit. A value of a unit that ends in "/s" is better when it is larger."""

    title: str
    unit: str
    rows: list[Row]


@dataclass
class Goal:
    """What is wanted, and what was measured."""

    what: str
    wanted: str  # "≥ 2.0" or "≤ 40"
    measured: float

    @property
    def met(self) -> bool:
        sign, bound = self.wanted.split()[:2]
        return self.measured >= float(bound) if sign == "≥" else self.measured <= float(bound)


@dataclass
class Result:
    """What a topic measured."""

    tables: list[Table]
    goals: list[Goal]
    remarks: list[str] = field(default_factory=list)


def machine() -> dict[str, Any]:
    """What kind of machine this is, and how busy it was before."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in _lines(cpuinfo) if line.startswith("model name")]
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
    """Of the packages that are timed."""
    installed = importlib.metadata.distributions(path=[*sys.path, str(FOLDER / ".torch")])  # `make bench-torch`
    found = {package.name.replace("_", "-"): package.version for package in installed}
    return {package: found[package] for package in PACKAGES if package in found}


def content(topic: str, result: Result, before: dict[str, Any]) -> dict[str, Any]:
    """What goes into results/TOPIC.json: a result with its medians and ratios, and what it was measured on."""
    tables = [
        {
            "title": table.title,
            "unit": table.unit,
            "rows": [
                {
                    **asdict(row),
                    "medians": row.medians,
                    "ratios": {side: row.ratio(side) for side in list(row.values)[1:]},
                }
                for row in table.rows
            ],
        }
        for table in result.tables
    ]
    goals = [{**asdict(goal), "met": goal.met} for goal in result.goals]
    found = {"command": f"make bench TOPIC={topic}", "machine": before, "versions": versions()}
    return _rounded({**found, "goals": goals, "remarks": result.remarks, "tables": tables})


def save(topic: str, found: dict[str, Any]) -> None:
    """Write results/TOPIC.json."""
    path = FOLDER / "results" / f"{topic}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def load(topic: str) -> dict[str, Any] | None:
    """The content of results/TOPIC.json, if there is one."""
    path = FOLDER / "results" / f"{topic}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _rounded(value: Any) -> Any:
    """Four digits: no timing carries more, and diffs stay short."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what Python prints."""
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        yield


def log(line: str) -> None:
    """Say how far the benchmark has come."""
    print(line, file=sys.stderr, flush=True)
