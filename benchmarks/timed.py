"""Run a stage as DVC does, and note what its time went into: `python -m benchmarks.timed stages.train mnist_dense`.

A line of JSON, in seconds, goes to the file that BENCHMARK_TIMES names.
"""

import functools
import json
import os
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psutil

seconds: defaultdict[str, float] = defaultdict(float)
_inside: list[str] = []


def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose time counts as `what`, unless it is called by one that counts already."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        _inside.append(what)
        try:
            return function(*arguments, **options)
        finally:
            _inside.pop()
            if not _inside:
                seconds[what] += time.perf_counter() - start

    return wrapper


def fitting(make: Callable[..., Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    """`make`, whose functions' time counts as fitting."""
    return lambda *arguments: timed("fitting", make(*arguments))


def main(module: str, *arguments: str) -> None:
    """Run `module` with `arguments`."""
    from stages import console, records, tracking

    import_tensorflow = timed("importing TensorFlow", console.import_tensorflow)

    def with_keras() -> None:
        import_tensorflow()
        import keras

        from stages import loops

        for kind in ("training", "checking"):
            setattr(loops, kind, fitting(getattr(loops, kind)))
        keras.Model.predict = timed("predicting", keras.Model.predict)

    package, stage = module.split(".")
    console.import_tensorflow = with_keras
    records.load = timed("reading records", records.load)
    records.write = timed("extracting" if stage == "extract" else "writing records", records.write)
    tracking.send = timed("MLflow", tracking.send)
    sys.argv = [f"{package}/{stage}.py", *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        whole = time.time() - psutil.Process().create_time()
        with open(os.environ["BENCHMARK_TIMES"], "a") as file:
            file.write(json.dumps({"stage": stage, "whole": whole, "parts": seconds}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
