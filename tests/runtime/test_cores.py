"""The number of processor cores on Linux and elsewhere."""

import os
import sys

import pytest

from stages.runtime.cores import available_cores


def test_available_cores_without_affinity_is_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, where os.sched_getaffinity does not exist."""
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cores() == os.cpu_count()
