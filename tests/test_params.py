"""params.yaml: what is valid, and what one line says of what is not."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import params
from stages.console import UserError
from tests.conftest import ROOT, write_params

# How a result is announced, moved into place, and told to MLflow
NO_RESULT = {ROOT / "stages/console.py", ROOT / "stages/files.py", ROOT / "stages/tracking.py"}


def test_the_file_of_the_repository_is_valid() -> None:
    values = params.load(ROOT / "params.yaml")
    assert len(values.datasets) == 4
    assert len(values.models) == 13


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v.update(seed=-1), "seed: -1: "),
        (lambda v: v.update(sed=1), "sed: unknown key with value 1; did you mean 'seed'?"),
        (lambda v: v.pop("train"), "train: missing"),
        (lambda v: v["train"].update(epochs="25"), "train.epochs: '25': "),
        (lambda v: v["train"].update(epochs=True), "train.epochs: True: "),
        (lambda v: v["train"].update(epoch=25), "train.epoch: unknown key with value 25; did you mean 'epochs'?"),
        (lambda v: v["train"].update(validation_fraction=1.0), "train.validation_fraction: 1.0: "),
        (lambda v: v["train"].update(learning_rate=float("nan")), "train.learning_rate: nan: "),
        (lambda v: v["models"]["mnist_cnn"].update(dataset="mnits"), "models.mnist_cnn.dataset: there is no 'mnits'"),
        (
            lambda v: v["models"]["mnist_cnn"].update(architecture="cn"),
            "models.mnist_cnn.architecture: there is no 'cn'",
        ),
        (lambda v: v["models"]["mnist_cnn"].pop("dataset"), "models.mnist_cnn.dataset: missing"),
        (lambda v: v["models"]["mnist_cnn"].update(filters=[0]), "models.mnist_cnn.filters.0: 0: "),
        (
            lambda v: v["models"]["mnist_cnn"].update(paddin="same"),
            "models.mnist_cnn.paddin: unknown key with value 'same'",
        ),
        (
            lambda v: v["models"]["fashion_mnist_lenet"].update(units=[3]),
            "models.fashion_mnist_lenet.units: unknown key",
        ),
        (
            lambda v: v["features"]["imagenette_vgg16"].update(backbone="vgg"),
            "features.imagenette_vgg16.backbone: there",
        ),
        (
            lambda v: v["models"]["imagenette_vgg16"].update(image_size=64),
            "models.imagenette_vgg16.image_size: imagenette_vgg16 holds features, not images",
        ),
        (lambda v: v["datasets"]["mnist"].update(classes=["a", "a"]), "datasets.mnist.classes"),
        (lambda v: v["datasets"]["mnist"].update(format="idxx"), "datasets.mnist.format: there is no 'idxx'"),
        (
            lambda v: v["datasets"].update(vgg16=v["datasets"]["mnist"]),
            "weights.vgg16: the name is taken by datasets.vgg16",
        ),
        (
            lambda v: v["datasets"]["mnist"]["files"]["t10k-labels-idx1-ubyte.gz"][0].update(hash="sha256:12"),
            "datasets.mnist.files.t10k-labels-idx1-ubyte.gz.0.hash: 'sha256:12': ",
        ),
        (
            lambda v: v["datasets"]["mnist"]["files"].update(
                {"../../evil": [{"url": "file:///x", "hash": "md5:" + "0" * 32}]}
            ),
            "datasets.mnist.files.../../evil",
        ),
    ],
)
def test_an_error_is_one_line_that_names_the_key(tmp_path: Path, change: Callable[[Any], None], expected: str) -> None:
    write_params(tmp_path, change)
    with pytest.raises(UserError, match=re.escape(f"params.yaml: {expected}")) as caught:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "source: [", "seed: 1\nseed: 2", "\x00"])
def test_what_is_no_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_an_override_of_train_wins_over_every_model(tmp_path: Path) -> None:
    write_params(tmp_path, lambda values: values["train"].update(epochs=7, learning_rate=1e-05))
    values = params.load(tmp_path / "params.yaml")
    assert {recipe.epochs for recipe in values.recipes.values()} == {7}
    assert {recipe.learning_rate for recipe in values.recipes.values()} == {1e-05}
    assert values.recipes["mnist_cnn"].batch_size == values.models["mnist_cnn"].batch_size == 128


def test_every_stage_of_dvc_yaml_has_its_module() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for name, stage in stages.items():
        command = stage.get("do", stage)["cmd"].split()
        assert command[:2] == ["python", "-m"]
        assert (ROOT / Path(*command[2].split("."))).with_suffix(".py").exists(), name


def test_every_module_that_a_stage_imports_is_a_dep() -> None:
    """A dep that is forgotten is a result that stays when it should not."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for name, stage in stages.items():
        stage = stage.get("do", stage)
        module = (ROOT / Path(*stage["cmd"].split()[2].split("."))).with_suffix(".py")
        missing = _imports(module) - {ROOT / dep for dep in stage["deps"]} - NO_RESULT
        assert not missing, name


def _imports(module: Path) -> set[Path]:
    """The module and all modules of the project that it imports, by name."""
    found, waiting = set(), [module]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            files = [(ROOT / Path(*name.split("."))).with_suffix(".py") for name in names]
            waiting += [file for file in files if file.exists()]
    return found
