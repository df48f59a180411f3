"""Run a stage as DVC does and record how long its parts take: `python -m benchmarks.timed stages.train mnist_dense`.

Appends one line of JSON, in seconds, to the file that BENCHMARK_TIMES names.
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
_active: list[str] = []


def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Count the time of `function` as `part`, unless a timed function calls it."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        _active.append(part)
        try:
            return function(*arguments, **options)
        finally:
            _active.pop()
            if not _active:
                seconds[part] += time.perf_counter() - start

    return wrapper


def main(module: str, *arguments: str) -> None:
    """Run `module` with `arguments`."""
    from stages.runtime import numerics

    import_tensorflow = timed("importing TensorFlow", numerics.import_tensorflow)
    package, stage = module.split(".")

    def import_and_patch(*positional: Any, **named: Any) -> None:
        import_tensorflow(*positional, **named)
        _time_heavy_modules(stage)

    numerics.import_tensorflow = import_and_patch
    from stages.tracking import runs, server, sync  # after the patch: they import the function by name

    server.connect = timed("MLflow", server.connect)
    runs.log_epochs, runs.log_model = timed("MLflow", runs.log_epochs), timed("MLflow", runs.log_model)
    sync.log_evaluations = timed("MLflow", sync.log_evaluations)
    sys.argv = [f"{package}/{stage}.py", *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        whole = time.time() - psutil.Process().create_time()
        with open(os.environ["BENCHMARK_TIMES"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "whole": whole, "parts": seconds}) + "\n")


@functools.cache
def _time_heavy_modules(stage: str) -> None:
    """Time functions of modules that import TensorFlow or TensorFlow Datasets."""
    from stages.data import reader

    reader.load = timed("reading records", reader.load)
    if stage in ("preprocess", "preprocess_folder", "extract"):  # the others do not import TensorFlow Datasets' writer
        from stages.data import writer

        writer.write = timed("writing records", writer.write)
    if stage == "extract":
        from stages.data import extraction

        extraction.write_features = timed("extraction", extraction.write_features)
    if stage == "train":
        from stages.prediction import predict
        from stages.training.trainer import Trainer

        for name in ("train_epoch", "evaluate"):
            setattr(Trainer, name, timed("training", getattr(Trainer, name)))
        for name in ("predict_records", "calibrate"):
            setattr(predict, name, timed("prediction", getattr(predict, name)))


if __name__ == "__main__":
    main(*sys.argv[1:])
