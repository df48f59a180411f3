"""What the user sees of a stage: one line an error, no noise, no waiting for what is not needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stages.train"], "usage: python -m stages.train MODEL\n"),
        (["stages.train", "mnist_dense", "--epochs=3"], "usage: python -m stages.train MODEL\n"),
        (
            ["stages.train", "mnist_dens"],
            "error: params.yaml: models: there is no 'mnist_dens'; did you mean 'mnist_dense'? ",
        ),
        (["stages.train", "mnist_dense"], "error: data/records/mnist: no records; run `dvc repro` or `dvc pull`\n"),
        (["stages.extract", "imagenette_vgg16"], "error: data/raw/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_"),
        (["stages.report"], "error: reports/published.yaml: No such file or directory\n"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(project: Path, arguments: list[str], message: str) -> None:
    done = stage(project, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_params_yaml_missing_is_one_line(tmp_path: Path) -> None:
    done = stage(tmp_path, "stages.params")
    assert (done.returncode, done.stderr) == (1, "error: params.yaml: No such file or directory\n")


IMPORTING = """
import os, signal, stages
os.kill(os.getpid(), signal.SIGINT)
"""
DELETING = """
import os, signal, time
from stages.console import run
class Tensor:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
def stage():
    tensor = Tensor()
    del tensor
    time.sleep(9)
    print("went on")
run(stage)
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("code", [IMPORTING, DELETING])
def test_ctrl_c_is_one_line_wherever_it_comes(code: str) -> None:
    """While a stage imports what it needs; and where Python prints and forgets what is raised."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert (done.stdout, done.stderr) == ("", "interrupted: `dvc repro` goes on from the last finished stage\n")


def test_tensorflow_starts_in_silence(project: Path) -> None:
    """Three stages that use TensorFlow, from their processes: what they print is theirs."""
    for arguments in (["stages.download", "mnist"], ["stages.preprocess", "mnist"], ["stages.train", "mnist_dense"]):
        done = stage(project, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "mnist_dense: 79,510 parameters, 36 training images, float32"
    assert done.stdout.splitlines()[1].startswith("epoch 1/1: loss ")


def test_light_stages_import_nothing_heavy() -> None:
    """A stage that needs no TensorFlow does not pay for it; none pays before its parameters are known to be good."""
    modules = ["download", "preprocess", "extract", "train", "evaluate", "report", "params", "sample"]
    code = (
        f"import sys, json, importlib\nfor name in {modules}: importlib.import_module('stages.' + name)\n"
        "print(json.dumps([name for name in ('tensorflow', 'keras', 'mlflow') if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_what_is_hidden_from_keras_can_be_imported_afterwards() -> None:
    code = (
        "import sys; from stages.console import import_tensorflow; import_tensorflow(); "
        "print('sklearn' in sys.modules, 'matplotlib' in sys.modules); import sklearn, matplotlib, pandas"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False False\n", "")
