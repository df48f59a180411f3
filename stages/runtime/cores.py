"""The processor cores of this process."""

import os
import sys


def available_cores() -> int:
    """The number of processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS cannot restrict a process to some cores
