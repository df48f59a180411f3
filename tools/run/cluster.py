"""`make cluster`: `make repro` with `engine: ray` and many stages at the same time, on one Ray for all of them."""

import os
import signal
import subprocess
import sys

from stages.cluster.connect import connected
from stages.config import params
from stages.runtime.cli import run
from stages.runtime.errors import UserError

JOBS = 32  # each training is a process here that waits for a node


def cluster(jobs: str, targets: str) -> None:
    """Connect to Ray and run `make repro` with `jobs`, 32 if empty."""
    engine = params.load().engine
    if engine != "ray":
        raise UserError(f"params.yaml: engine: {engine}; set it to ray, or run `make repro`")
    command = [sys.executable, "-m", "tools.run.repro", jobs or str(JOBS), targets]
    # In a process of its own: it forks, which a process with Ray's threads must not do
    with connected() as address, subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": address}) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other process knows what to do
        try:
            code = process.wait()
        finally:
            process.terminate()
    sys.exit(code)


if __name__ == "__main__":
    run(cluster, "jobs", "targets")
