"""TensorFlow's numerical environment: what else than code, parameters and data decides the last bits of a result.

Kernels, threads and Keras's settings are fixed here, whatever the user's environment says. Number format and versions
are recorded, and the processor where the kernels depend on it.
"""

import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from stages.runtime.errors import UserError

# portable: float32 by AVX2, the same bytes on every x86-64 processor since 2013. avx512_bf16: bfloat16 without AMX, the
# same bytes on AMD's and Intel's server processors. native: the fastest that the processor has.
Kernels = Literal["portable", "avx512_bf16", "native"]
ISA = {"portable": "AVX2", "avx512_bf16": "AVX512_CORE_BF16", "native": "DEFAULT"}  # the names of oneDNN
XLA_ISA = {"portable": "AVX2", "avx512_bf16": "AVX512", "native": ""}
# Variables with these prefixes choose kernels, or cut a prediction short: a user's own have no effect here
CLEARED = ("ONEDNN_", "DNNL_", "MKL_", "TF_", "XLA_", "KERAS_", "NVIDIA_TF32_")
KEPT = ("TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR")
KERAS_HOME = Path(".dvc/tmp/keras")
NVIDIA = Path("/proc/driver/nvidia/version")  # there when the system has a GPU and its driver
NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # elsewhere TensorFlow emulates it, which is slower than float32
GPU_BFLOAT16 = (8, 0)  # compute capability since which GPUs have it: Ampere
VECTOR_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # by which TensorFlow chooses its kernels


def import_tensorflow(threads: int | None = None, kernels: Kernels = "native", gpu: bool = True) -> None:
    """Import TensorFlow quietly, and fix what would otherwise change results from one machine or user to another.

    Costs seconds, so call it after the configuration has been checked, and before anything else imports Keras.

    Args:
        threads: number of threads that share an operation: sums are split among them, which changes their last bits.
            None where no result depends on it.
        kernels: the instructions that TensorFlow may compute with. Portable kernels use no GPU.
        gpu: whether to use the GPUs of the machine. A process that trains nothing must not take their memory.
    """
    fix_environment(kernels)
    gpu = gpu and kernels != "portable"
    # Keras imports whole libraries, where they are installed, for parts that no stage uses: a third of the time. A name
    # that stands for None counts as not installed.
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in ("sklearn", "matplotlib", "pandas") if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        with silent():  # the start-up messages come before any log level takes effect
            import absl.logging
            import tensorflow as tf

            absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of its own deprecations
            _configure_devices(threads, gpu)
            tf.zeros(1)  # the devices write messages, too, when they are first used
            if kernels != "native":
                _replace_rsqrt()
    finally:
        for name in hidden:
            del modules[name]
    # What is imported lives as long as the process: a small training is a fifth faster if the collector leaves it alone
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    if gpu and NVIDIA.exists() and not tf.config.list_physical_devices("GPU"):
        print(
            "warning: TensorFlow cannot use the GPU of this machine; remove .venv and run "
            "`make setup REQUIREMENTS=requirements-gpu.txt`",
            flush=True,
        )


def _replace_rsqrt() -> None:
    """Compute reciprocal square roots with exactly rounded operations, so that AMD's and Intel's have the same bits.

    TensorFlow's kernel refines the approximation of an instruction for which each maker has a table of its own. Keras's
    batch normalization uses it wherever TensorFlow's fused kernel does not normalize. Grappler would turn 1 / x and
    x / sqrt(y) into such kernels, but leaves sqrt(x) / x.
    """
    import tensorflow as tf

    def rsqrt(x: Any, name: str | None = None) -> Any:
        return tf.math.divide(tf.math.sqrt(x), x, name=name)

    def batch_normalization(
        x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: float, name: str | None = None
    ) -> Any:
        factor = rsqrt(variance + variance_epsilon)
        factor = factor if scale is None else factor * scale
        shift = -mean * factor if offset is None else offset - mean * factor
        return tf.math.add(x * tf.cast(factor, x.dtype), tf.cast(shift, x.dtype), name=name)

    tf.math.rsqrt, tf.nn.batch_normalization = rsqrt, batch_normalization


def fix_environment(kernels: Kernels) -> None:
    """Set the variables that choose kernels, and clear all others that could."""
    for name in [name for name in os.environ if name.startswith(CLEARED) and name not in KEPT]:
        del os.environ[name]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ |= {
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(KERAS_HOME.resolve()),  # not the user's keras.json: its image_data_format changes models
        "TF_ENABLE_ONEDNN_OPTS": "1",  # other kernels round otherwise
        "ONEDNN_MAX_CPU_ISA": ISA[kernels],
    }
    if XLA_ISA[kernels]:
        os.environ["XLA_FLAGS"] = f"--xla_cpu_max_isa={XLA_ISA[kernels]}"


def _configure_devices(threads: int | None, gpu: bool) -> None:
    """Set threads and visible devices, which TensorFlow allows until the first operation."""
    import tensorflow as tf

    if threads is not None and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    devices = tf.config.list_physical_devices("GPU")
    if not gpu:
        tf.config.set_visible_devices([], "GPU")
        return
    for device in devices:
        tf.config.experimental.set_memory_growth(device, True)  # else a process takes all memory of every GPU


def environment(threads: int, kernels: Kernels, compute_dtype: str) -> dict[str, str]:
    """What else than code, parameters and data determines the last bits of a result, to be recorded beside it.

    With portable kernels that is the same on every machine.
    """
    import tensorflow as tf

    fixed = {"threads": str(threads), "kernels": kernels, "compute_dtype": compute_dtype}
    if kernels == "portable":
        return fixed | versions()
    unused = {} if tf.config.get_visible_devices("GPU") else {"gpu": "none"}
    return fixed | machine() | unused


def machine() -> dict[str, str]:
    """The part of `environment` that is the same for all results of a machine. Does not import TensorFlow."""
    return {"processor": processor(), "gpu": _gpus(), "python": platform.python_version(), **versions()}


def versions() -> dict[str, str]:
    """The versions of the packages that compute. Does not import them."""
    packages = {package: _version(package) for package in ("tensorflow-cpu", "tensorflow", "keras", "numpy")}
    return {package.removesuffix("-cpu"): text for package, text in packages.items() if text}


def _gpus() -> str:
    """The models of all GPUs of this machine, as their driver names them; their number changes sums, too."""
    files = sorted(NVIDIA.parent.glob("gpus/*/information"))
    lines = [
        line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("Model:")
    ]
    return ", ".join(sorted(line.partition(":")[2].strip() for line in lines)) or "none"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The kind of processor as far as kernels are chosen by it: its architecture and its widest vector instructions."""
    flags = processor_flags()
    return "-".join([platform.machine(), *(flag for flag in VECTOR_FLAGS if flag in flags)])


def resolve_compute_dtype(compute_dtype: str, kernels: Kernels = "native") -> str:
    """Resolve `auto` to the fastest number format that this machine computes natively; return any other as it is.

    Returns:
        float32 with portable kernels; bfloat16 with GPUs or a processor that have instructions for it; float16 with
        older GPUs; else float32.

    Raises:
        UserError: portable kernels cannot compute in `compute_dtype`.
    """
    if kernels == "portable":
        if compute_dtype not in ("auto", "float32"):
            raise UserError(
                f"params.yaml: compute_dtype: {compute_dtype}: portable kernels compute in float32; set it to auto, or "
                "kernels to native"
            )
        return "float32"
    if compute_dtype != "auto":
        return compute_dtype
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        details = map(tf.config.experimental.get_device_details, gpus)
        native = all(one.get("compute_capability", (0, 0)) >= GPU_BFLOAT16 for one in details)
        return "bfloat16" if native else "float16"
    return "bfloat16" if processor_flags() & NATIVE_BFLOAT16 else "float32"


def dtype_policy(compute_dtype: str) -> str:
    """The Keras dtype policy that computes in `compute_dtype` and keeps variables in float32."""
    return compute_dtype if compute_dtype == "float32" else f"mixed_{compute_dtype}"


def processor_flags() -> set[str]:
    """Names of the processor's instruction sets; empty where the system has no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


@contextmanager
def silent() -> Iterator[None]:
    """Drop what C++ code writes to standard error; exceptions pass."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
