"""`make machine`: one line on what can change the bytes of a training besides its inputs. CI keys its cache on it."""

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stages.runtime.cli import run
from stages.runtime.numerics import processor_flags


def machine() -> str:
    """Processor, number of cores, operating system, and versions of Python and TensorFlow."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    instructions = hashlib.sha256(" ".join(sorted(processor_flags())).encode()).hexdigest()[:7]
    return (
        f"{models[0] if models else platform.processor() or 'unknown processor'} (instruction sets {instructions}), "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"TensorFlow {_tensorflow()}"
    )


def _tensorflow() -> str:
    for package in ("tensorflow-cpu", "tensorflow"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "not installed"


def print_machine() -> None:
    """Print the line."""
    print(machine())


if __name__ == "__main__":
    run(print_machine)
