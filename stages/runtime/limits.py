"""Processor cores and memory that this process may use; of a container, those that its control groups allow."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """The number of processor cores, at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    found = [len(affinity(0)) if affinity else os.cpu_count() or 1]
    for group in _groups("cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")  # version 2
        quota, period = quota or _text(group / "cpu.cfs_quota_us"), period or _text(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():  # neither "max" nor -1
            found.append(round(int(quota) / int(period)))
    return max(1, min(found))


def free_memory() -> int:
    """The bytes of memory that may still be used."""
    import psutil

    found = [psutil.virtual_memory().available]
    for group in _groups("memory"):
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
        ):
            if _text(group / limit).isdecimal():
                counts = dict(line.split() for line in _text(group / "memory.stat").splitlines())
                used = int(_text(group / usage) or 0) - int(counts.get(cached, 0))  # files that need not stay in memory
                found.append(int(_text(group / limit)) - used)
    return max(0, min(found))


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the control group of this process and of those around it, each of which may have a limit."""
    for line in _text(PROC).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = GROUPS / controller if controllers else GROUPS
            folder = root / path.lstrip("/")  # not there if the container does not see its own path
            yield from (group for group in (folder, *folder.parents) if group.is_relative_to(root))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
