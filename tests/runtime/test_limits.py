"""What a container may use, of the machine's cores and memory."""

from pathlib import Path

import psutil
import pytest

from stages.runtime import limits

GIB = 1 << 30
VERSION_2 = {
    "cgroup": "0::/pod/app\n",
    "fs/pod/cpu.max": "150000 100000\n",  # of all containers of a pod
    "fs/pod/app/cpu.max": "max 100000\n",
    "fs/pod/memory.max": "max\n",
    "fs/pod/app/memory.max": f"{GIB}\n",
    "fs/pod/app/memory.current": f"{GIB // 2}\n",
    "fs/pod/app/memory.stat": f"anon {GIB // 4}\ninactive_file {GIB // 4}\n",
}
VERSION_1 = {
    "cgroup": "5:memory:/docker/a1\n4:cpu,cpuacct:/docker/a1\n1:name=systemd:/docker/a1\n",  # a path of the host
    "fs/cpu/cpu.cfs_quota_us": "100000\n",
    "fs/cpu/cpu.cfs_period_us": "100000\n",
    "fs/memory/memory.limit_in_bytes": f"{GIB}\n",
    "fs/memory/memory.usage_in_bytes": f"{GIB // 2}\n",
    "fs/memory/memory.stat": f"total_inactive_file {GIB // 4}\n",
}
UNLIMITED_1 = {
    **VERSION_1,
    "fs/cpu/cpu.cfs_quota_us": "-1\n",
    "fs/memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
}


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        (VERSION_2, 2, GIB * 3 // 4),
        (VERSION_1, 1, GIB * 3 // 4),
        (UNLIMITED_1, 8, 100 * GIB),
        ({}, 8, 100 * GIB),  # neither Linux nor a container
    ],
)
def test_limits_of_a_container_are_those_of_its_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int, memory: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(limits, "PROC", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "fs")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100 * GIB}))
    assert (limits.cores(), limits.free_memory()) == (cores, memory)
