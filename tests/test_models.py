"""The thirteen models are the published ones."""

import numpy as np
import pytest

from stages import params, train
from tests.conftest import ROOT

VALUES = params.load(ROOT / "params.yaml")
SHAPES = {
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "imagenette": (64, 64, 3),
    "imagenette_vgg16": (7, 7, 512),
}
PARAMETERS = {
    "mnist_dense": 79_510,
    "mnist_cnn": 423_860,
    "fashion_mnist_dense": 266_610,
    "fashion_mnist_cnn": 167_114,
    "fashion_mnist_lenet": 107_786,
    "fashion_mnist_bn_cnn": 3_065_354,
    "cifar10_cnn": 692_618,
    "cifar10_cnn_augmented": 692_618,
    "cifar10_dropout_cnn": 4_247_985,
    "cifar10_small_cnn": 545_098,
    "cifar10_small_cnn_augmented": 545_098,
    "imagenette_cnn": 1_439_818,  # conv 896 + 18,496 + 73,856 + 295,168; dense 4·4·256·256 + 256; 2,570
    "imagenette_vgg16": 6_425_354,  # 7·7·512·256 + 256; 2,570
}


def test_every_model_is_listed() -> None:
    assert set(PARAMETERS) == set(VALUES.models)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    recipe = VALUES.models[name]
    dtype = np.dtype("float16" if recipe.dataset in VALUES.features else "uint8")
    model = train.build(recipe, SHAPES[recipe.dataset], dtype, 10, seed=1)
    assert model.count_params() == PARAMETERS[name]
    assert model.output_shape == (None, 10)
