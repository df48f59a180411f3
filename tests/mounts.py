"""Disks of their own for tests of full, read-only and forbidden folders."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Mounts in a namespace of the process need no permission where the system allows such namespaces.
NAMESPACE = ["unshare", "--map-root-user", "--mount"]
TRIAL = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/tmp"]
needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(TRIAL, capture_output=True).returncode != 0,
    reason="this system does not let a process mount a disk of its own",
)


def run_with_mounts(folder: Path, script: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `folder` that may mount disks; `$PYTHON -m stages.NAME` runs a stage of this project."""
    environment = {**os.environ, **values, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    return subprocess.run(
        [*NAMESPACE, "sh", "-euc", script], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
