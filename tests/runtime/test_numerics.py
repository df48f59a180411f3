"""Number formats: `auto` takes what the machine computes natively."""

from pathlib import Path

import pytest

from stages.runtime.numerics import NATIVE_BFLOAT16, dtype_policy, resolve_compute_dtype


def test_auto_is_the_native_format_of_the_machine() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        assert resolve_compute_dtype("auto") == "float16"
        return
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = any(flag in text for flag in NATIVE_BFLOAT16)
    assert resolve_compute_dtype("auto") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(
    ("compute_dtype", "policy"),
    [("float32", "float32"), ("bfloat16", "mixed_bfloat16"), ("float16", "mixed_float16")],
)
def test_named_format_is_used_with_variables_in_float32(compute_dtype: str, policy: str) -> None:
    assert resolve_compute_dtype(compute_dtype) == compute_dtype
    assert dtype_policy(compute_dtype) == policy
