"""Which number format a model computes in."""

from pathlib import Path

NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # elsewhere TensorFlow emulates it, which is slower than float32


def resolve(precision: str) -> str:
    """Turn `auto` into a Keras dtype policy: the fastest that this machine computes natively.

    A GPU gives mixed_float16, a processor with bfloat16 instructions mixed_bfloat16, any other float32. What is not
    `auto` is returned as it is.
    """
    if precision != "auto":
        return precision
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "mixed_float16"
    return "mixed_bfloat16" if processor_flags() & NATIVE_BFLOAT16 else "float32"


def processor_flags() -> set[str]:
    """Names of the processor's instruction sets; empty where the system has no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
