"""TensorFlow's environment: number formats, and which process may use a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.numerics import NATIVE_BFLOAT16, dtype_policy, resolve_compute_dtype
from tests.conftest import ROOT, run


def test_auto_resolves_to_the_native_format_of_the_machine() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("the format of a processor is that of a machine without a GPU")
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    native = any(flag in text for flag in NATIVE_BFLOAT16)
    assert resolve_compute_dtype("auto") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([(8, 0)], "bfloat16"), ([(9, 0), (7, 5)], "float16"), ([None], "float16")],
)
def test_auto_resolves_to_the_native_format_of_all_gpus(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int] | None], expected: str
) -> None:
    import tensorflow as tf

    details = [{"compute_capability": one} if one else {} for one in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: range(len(details)))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda number: details[number])
    assert resolve_compute_dtype("auto") == expected


@pytest.mark.parametrize(
    ("compute_dtype", "policy"),
    [("float32", "float32"), ("bfloat16", "mixed_bfloat16"), ("float16", "mixed_float16")],
)
def test_named_format_keeps_variables_in_float32(compute_dtype: str, policy: str) -> None:
    assert resolve_compute_dtype(compute_dtype) == compute_dtype
    assert dtype_policy(compute_dtype) == policy


# Stands for a machine with a GPU: logical devices take the place of physical ones, and the calls are recorded.
GPU_MACHINE = """
import sys
from pathlib import Path
from stages.runtime import numerics
numerics.NVIDIA = Path("/no/driver")
numerics.import_tensorflow(2)
print("sklearn" in sys.modules, "matplotlib" in sys.modules)
import matplotlib, pandas, sklearn
import tensorflow as tf
calls = []
tf.config.set_visible_devices = lambda devices, kind: calls.append(f"visible {devices} {kind}")
tf.config.experimental.set_memory_growth = lambda device, on: calls.append(f"growth {device} {on}")
for driver, gpus, use in (("/", "gpu0 gpu1", True), ("/", "gpu0", False), ("/", "", True), ("/no/driver", "", True)):
    numerics.NVIDIA = Path(driver)
    tf.config.list_physical_devices = lambda kind=None: gpus.split() if kind == "GPU" else []
    numerics.import_tensorflow(2, gpu=use)
    print("; ".join(calls))
    calls.clear()
"""


def test_gpu_memory_grows_where_it_is_used_and_is_left_alone_elsewhere(tmp_path: Path) -> None:
    """And libraries that were hidden from Keras can be imported afterwards."""
    command = [sys.executable, "-c", GPU_MACHINE]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    imported, training, report, warning, unusable, none = done.stdout.splitlines()
    assert training == "growth gpu0 True; growth gpu1 True"
    assert report == "visible [] GPU"
    assert warning.startswith("warning: TensorFlow cannot use the GPU of this machine")
    assert (imported, unusable, none) == ("False False", "", "")


NORMALIZATION = """
import sys
from stages.runtime.numerics import import_tensorflow
import_tensorflow(1, sys.argv[1])
import keras, numpy as np, tensorflow as tf
from tensorflow.python.eager import context

for shape in ((8,), (4, 4, 8)):
    layer = keras.layers.BatchNormalization()
    inputs = tf.constant(np.random.default_rng(0).random((32, *shape), np.float32))
    layer.build(inputs.shape)
    layer.gamma.assign(tf.range(1.0, 9))
    layer.moving_variance.assign(tf.range(1.0, 9))

    def step(inputs, training):
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=training)
        return outputs, tape.gradient(outputs, layer.trainable_variables)

    for training in (False, True):
        graph = tf.function(step)
        context.enable_run_metadata()
        outputs, _ = graph(inputs, training)
        metadata = context.export_run_metadata()
        context.disable_run_metadata()
        found = {node.op for part in metadata.function_graphs for each in part.partition_graphs for node in each.node}
        print(sorted(found & {"Rsqrt", "Reciprocal", "Inv"}), "Sqrt" in found or "Rsqrt" in found)
        if not training:
            expected = np.arange(1, 9) * inputs / np.sqrt(np.arange(1, 9) + layer.epsilon)
            np.testing.assert_allclose(outputs, expected, 1e-5)
"""


@pytest.mark.parametrize(("kernels", "approximate"), [("portable", "[] True"), ("native", "['Rsqrt'] True")])
def test_portable_normalization_has_no_root_that_amd_and_intel_approximate_differently(
    kernels: str, approximate: str
) -> None:
    done = run(ROOT, sys.executable, "-c", NORMALIZATION, kernels)
    assert done.stdout.splitlines() == [approximate] * 4, done.stderr
