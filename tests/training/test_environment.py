"""A training has the same bytes whatever a user's environment says and however many cores it may use.

With portable kernels and with native ones. Each is a process of its own: TensorFlow takes these settings once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.config import params
from stages.data import writer
from stages.runtime import paths
from stages.training.train_model import Training
from tests.conftest import ROOT, write_params
from tests.training.small import MIXING, PLACES, arrays

HOSTILE = {
    "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_DEFAULT_FPMATH_MODE": "BF16",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "ONEDNN_CPU_ISA_HINTS": "PREFER_YMM",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
    "TF_DISABLE_MKL": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_ENABLE_MKL_NATIVE_FORMAT": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_DETERMINISTIC_OPS": "0",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_ENABLE_AUTO_MIXED_PRECISION": "1",
    "TF_FUNCTION_JIT_COMPILE_DEFAULT": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true --xla_cpu_max_isa=SSE4_2 --xla_cpu_prefer_vector_width=128",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OMP_NUM_THREADS": "1",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_BACKEND": "jax",
    "NVIDIA_TF32_OVERRIDE": "0",
    "PYTHONHASHSEED": "7",
    "PYTHONOPTIMIZE": "2",
    "TZ": "Asia/Kathmandu",
}
KERAS_JSON = {"backend": "jax", "floatx": "float64", "epsilon": 0.001, "image_data_format": "channels_first"}
TRAINING = """
from stages.config import params
from stages.training.train_model import Training, run
values = params.load()
for name in values.models:
    list(run(Training.of(name, values), values.memory))
    import keras  # late: until TensorFlow is imported, the environment is the user's
    keras.utils.clear_session()  # Keras numbers the models of a process
"""
CNN: dict[str, Any] = {
    **{"dataset": "cifar10", "architecture": "bn_cnn", "filters": [8], "units": [16]},
    "optimizer": {"name": "adamw", "weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3},
    "groups": {
        "convolution": {
            "variables": "conv2d/kernel",
            "optimizer": {"name": "muon", "momentum": 0.6, "nesterov": True, "iterations": 3},
        },
        "biases": {
            "variables": "dense*/bias",
            "optimizer": {"name": "radam", "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3},
        },
    },
    **{"schedule": {"name": "cosine"}, "loss": {"name": "cross_entropy", "label_smoothing": 0.1}},
    **{"learning_rate": 0.01, "batch_size": 32, "epochs": 2, "compute_dtype": "auto"},
}
AIRBENCH: dict[str, Any] = {  # what is not as in its entry; whitening, GELU and test-time augmentation are
    **{"widths": [8, 16], "batch_size": 32, "epochs": 2},
    "initialize": [{"name": "whitening", "layer": "whitening", "images": 100, "epsilon": 0.0005}],
    "augment": [*PLACES, *MIXING, {"name": "rotation", "factor": 0.1}],
    "averaging": {"name": "lookahead", "every": 2, "decay": 0.5, "keep_slow": True},
}


@pytest.mark.parametrize("kernels", ["portable", "native"])
def test_training_has_the_same_bytes_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    def change(values: Any) -> None:
        airbench = {key: value for key, value in values["models"]["cifar10_airbench94"].items() if key != "synthetic"}
        values["models"] = {"airbench": {**airbench, **AIRBENCH}, "cnn": CNN}
        values["kernels"]["synthetic"] = kernels
        values["train"]["epochs"] = None
        values["export"] = []

    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT")}
    plain |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "plain")}
    (tmp_path / "home/.keras").mkdir(parents=True)
    (tmp_path / "home/.keras/keras.json").write_text(json.dumps(KERAS_JSON), encoding="utf-8")
    hostile = plain | HOSTILE | {"HOME": str(tmp_path / "home"), "KERAS_HOME": str(tmp_path / "home/.keras")}
    one_core = ["taskset", "--cpu-list", "0"] if sys.platform == "linux" else []
    processes = {}
    for name, environment, prefix in (("plain", plain, []), ("hostile", hostile, one_core)):
        folder = tmp_path / name
        folder.mkdir()
        write_params(folder, change)
        monkeypatch.chdir(folder)
        splits = [("train", arrays(230, side=32, channels=3)), ("test", arrays(50, 1, side=32, channels=3))]
        examples = (
            (split, f"{split}{key}", pixels, int(label))
            for split, data in splits
            for key, pixels, label in zip(data.keys, data.inputs, data.labels, strict=True)
        )
        writer.write("cifar10", params.load().datasets["cifar10"].class_names, ["train", "test"], examples)
        processes[folder] = subprocess.Popen([*prefix, sys.executable, "-c", TRAINING], cwd=folder, env=environment)
    assert [process.wait() for process in processes.values()] == [0, 0]
    values = params.load()
    outputs = [path for name in values.models for path in Training.of(name, values).outputs]
    one, other = ({path: (folder / path).read_bytes() for path in outputs} for folder in processes)
    assert [str(path) for path in outputs if one[path] != other[path]] == []
    facts = json.loads(one[paths.environment("train", "cnn")])
    assert facts["threads"] == str(values.threads)
    if kernels == "portable":  # nothing of the machine
        assert set(facts) == {"threads", "kernels", "compute_dtype", "tensorflow", "keras", "numpy"}
