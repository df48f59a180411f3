"""Grad-CAM of networks in which it is known where they look."""

from typing import Any

import numpy as np
import pytest

from stages.inference.grad_cam import GradCam

SIDE = 8


def bright_quarter() -> np.ndarray:
    """An image (1, 8, 8, 1) whose upper left quarter is white."""
    image = np.zeros((1, SIDE, SIDE, 1), np.uint8)
    image[:, : SIDE // 2, : SIDE // 2] = 255
    return image


def two_detectors(softmax_layer: bool, scale: float = 1000.0) -> Any:
    """Class 0 looks for bright pixels, class 1 for dark ones; the nested network is that of `build_model`."""
    import keras
    from keras import layers

    last = [layers.Dense(2, use_bias=False, activation=None if softmax_layer else "softmax", name="last")]
    network = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Conv2D(2, 1, activation="relu", name="detectors"),
            layers.GlobalAveragePooling2D(),
            *last,
            *([layers.Softmax()] if softmax_layer else []),
        ]
    )
    network.get_layer("detectors").set_weights([np.array([[[[1.0, -1.0]]]]), np.array([0.0, 1.0])])
    network.get_layer("last").set_weights([scale * np.eye(2)])
    inputs = keras.Input((SIDE, SIDE, 1), dtype="uint8")
    return keras.Model(inputs, network(layers.Rescaling(1 / 255)(keras.ops.cast(inputs, "float32"))))


@pytest.mark.parametrize("softmax_layer", [False, True])
def test_heat_lies_where_the_class_is_detected_although_the_softmax_is_saturated(softmax_layer: bool) -> None:
    model = two_detectors(softmax_layer)
    image = bright_quarter()
    assert set(model.predict(image, verbose=0).ravel()) == {0, 1}
    heat = GradCam(model)(np.concatenate([image, image]), np.array([0, 1]), (SIDE, SIDE))
    assert heat.dtype == np.float32
    bright = image[0, :, :, 0] / 255
    np.testing.assert_allclose(heat, [bright, 1 - bright], atol=1e-6)


def test_nothing_speaks_for_a_class_whose_detector_is_negative() -> None:
    heat = GradCam(two_detectors(False, scale=-1.0))(bright_quarter(), np.array([0]), (SIDE, SIDE))
    np.testing.assert_array_equal(heat, np.zeros((1, SIDE, SIDE)))


def test_heat_of_a_head_on_features_lies_in_its_inputs() -> None:
    import keras
    from keras import layers

    network = keras.Sequential(
        [keras.Input((2, 2, 3)), layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax", name="last")]
    )
    network.get_layer("last").set_weights([np.array([[1.0, 0], [0, 1], [0, 0]]), np.zeros(2)])
    inputs = keras.Input((2, 2, 3), dtype="float16")
    features = np.zeros((1, 2, 2, 3), np.float16)
    features[0, 1, 0] = [4, 0, 9]  # for class 0, and what no class looks for
    features[0, 0, 1] = [0, 2, 9]
    grad_cam = GradCam(keras.Model(inputs, network(inputs)))
    np.testing.assert_allclose(grad_cam(features, np.array([0]), (2, 2))[0], [[0, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(grad_cam(features, np.array([1]), (2, 2))[0], [[0, 1], [0, 0]], atol=1e-6)


def test_heat_of_a_network_that_flattens_its_maps_lies_where_its_weights_are() -> None:
    import keras
    from keras import layers

    network = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Conv2D(1, 1, use_bias=False, name="copy"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax", use_bias=False, name="last"),
        ]
    )
    network.get_layer("copy").set_weights([np.ones((1, 1, 1, 1))])
    # Each class has one pixel that speaks for it and one that speaks as much against it
    network.get_layer("last").set_weights([np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])])
    inputs = keras.Input((2, 2, 1), dtype="uint8")
    grad_cam = GradCam(keras.Model(inputs, network(keras.ops.cast(inputs, "float32"))))
    heat = grad_cam(np.full((2, 2, 2, 1), 200, np.uint8), np.array([0, 1]), (2, 2))
    np.testing.assert_allclose(heat, [[[1, 0], [0, 0]], [[0, 1], [0, 0]]], atol=1e-6)


def test_dense_network_on_pixels_has_no_heat_map() -> None:
    import keras
    from keras import layers

    inputs = keras.Input((SIDE, SIDE, 1), dtype="uint8")
    network = keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Flatten(), layers.Dense(2, activation="softmax")])
    with pytest.raises(ValueError, match="no convolution"):
        GradCam(keras.Model(inputs, network(keras.ops.cast(inputs, "float32"))))
