"""Models of params.yaml: their numbers of parameters, and architectures that do not fit."""

import numpy as np
import pytest

from stages.config import params
from stages.prediction.eval_batch_size import MAX_EVAL_BATCH, eval_batch_size
from stages.runtime.errors import UserError
from stages.training.network import build_model, without_cast
from tests.conftest import SAMPLE

VALUES = params.load(SAMPLE / "params.yaml")
SHAPES = {
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "imagenette": (64, 64, 3),
    "imagenette_vgg16": (7, 7, 512),
}
PARAMETERS = {  # of the published models
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
    "mnist_deotte": 327_242,
    "fashion_mnist_resnet": 4_911_640,
    "cifar10_airbench93": 570_296,
    "cifar10_airbench94": 1_973_944,
    "cifar10_airbench96": 9_921_848,
}
TRAINABLE = {  # where the publication gives it
    "mnist_deotte": 326_410,
    "fashion_mnist_resnet": 4_907_588,
    "cifar10_airbench93": 568_728,
    "cifar10_airbench94": 1_971_352,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_model_has_its_number_of_parameters_and_whole_eval_batches(name: str) -> None:
    config = VALUES.models[name]
    dtype = np.dtype("float16" if config.dataset in VALUES.features else "uint8")
    model = build_model(config, SHAPES[config.dataset], dtype, 10)
    assert model.count_params() == PARAMETERS[name]
    if name in TRAINABLE:
        assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == TRAINABLE[name]
    assert model.output_shape == (None, 10)
    assert eval_batch_size(model) == MAX_EVAL_BATCH


def test_mini_net_has_its_number_of_parameters() -> None:
    model = build_model(VALUES.models["imagenette_mini_net"], (128, 128, 3), np.dtype("uint8"), 10)
    assert model.count_params() == 12_949_922
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == 12_938_274


def test_xresnet18_has_its_number_of_parameters_at_every_image_size() -> None:
    config = VALUES.models["imagenette_128"]
    models = [build_model(config, (side, side, 3), np.dtype("uint8"), 10) for side in (64, 128)]
    # Size² · inputs · outputs + 4 · outputs for each convolution with its batch normalization; 5,130
    assert {model.count_params() for model in models} == {11_210_602}


def test_eval_batch_of_large_images_is_bounded_by_memory() -> None:
    """At 256 pixels, a batch of 256 took 3.8 GB."""
    sides = {
        side: build_model(VALUES.models["imagenette_cnn"], (side, side, 3), np.dtype("uint8"), 10)
        for side in (128, 256)
    }
    assert {side: eval_batch_size(model) for side, model in sides.items()} == {128: 64, 256: 16}


def test_layers_without_cast_take_pixels_that_are_not_whole_numbers() -> None:
    model = build_model(VALUES.models["mnist_dense"], (28, 28, 1), np.dtype("uint8"), 10)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 28, 28, 1)).astype("uint8")
    training = without_cast(model)
    np.testing.assert_array_equal(np.asarray(training(pixels.astype("float32"))), np.asarray(model(pixels)))
    assert not np.array_equal(np.asarray(training(pixels + 0.4)), np.asarray(model(pixels)))
    assert [id(one) for one in training.variables] == [id(one) for one in model.variables]


def test_architecture_that_does_not_fit_its_images_is_one_line() -> None:
    with pytest.raises(UserError, match="cnn does not fit inputs of shape") as caught:
        build_model(VALUES.models["cifar10_cnn"], (8, 8, 1), np.dtype("uint8"), 2)
    assert "\n" not in str(caught.value)


def test_pixels_are_normalized_in_float32_whatever_the_model_computes_in() -> None:
    """bfloat16 has 8 bits: whitening would amplify the rounding of pixels."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        config = VALUES.models["cifar10_airbench94"]
        model = build_model(config, (32, 32, 3), np.dtype("uint8"), 10)
    finally:
        keras.config.set_dtype_policy("float32")
    *_, rescaling, network = model.layers
    pixels = np.arange(32 * 32 * 3).reshape(1, 32, 32, 3).astype("uint8")
    scaled = keras.Model(model.inputs, rescaling.output)(pixels)
    found = keras.Model(network.inputs, network.get_layer("whitening").input)(scaled)
    expected = (pixels / 255 - np.array(config.options["mean"])) / np.array(config.options["std"])
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cifar10_airbench93", "imagenette_128"])
def test_normalization_of_other_channels_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"the images have 1 channels, mean has 3 and std 3$"):
        build_model(VALUES.models[name], (128, 128, 1), np.dtype("uint8"), 10)
