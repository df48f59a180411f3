"""`auto` takes what the machine computes natively."""

from pathlib import Path

import pytest

from stages.precision import NATIVE_BFLOAT16, resolve


def test_auto_is_what_the_machine_has() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        assert resolve("auto") == "mixed_float16"
        return
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = any(flag in text for flag in NATIVE_BFLOAT16)
    assert resolve("auto") == ("mixed_bfloat16" if native else "float32")


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_what_is_named_is_taken(precision: str) -> None:
    assert resolve(precision) == precision
