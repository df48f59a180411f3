"""Test-time augmentation: the views of each part, and the prediction from all of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.config.models import PartConfig
from stages.config.plugins import load_plugin
from stages.prediction.saved_model import save
from tests.training.small import arrays, config, model_of, predict

PARTS: dict[str, dict[str, Any]] = {"mirror": {}, "mirror_shift": {"shift": 1}}


def views_of(name: str, images: np.ndarray) -> list[tuple[float, np.ndarray]]:
    return list(load_plugin("prediction.test_time", name).build(**PARTS[name])(images))


@pytest.mark.parametrize("name", PARTS)
def test_views_begin_with_the_images_and_have_weights_of_one(name: str) -> None:
    images = arrays(5, channels=3).inputs
    weights, views = zip(*views_of(name, images), strict=True)
    assert sum(weights) == 1
    assert views[0] is images
    assert {view.shape for view in views} == {images.shape}
    assert {view.dtype for view in views} == {images.dtype}


def test_views_of_mirror_shift_are_by_the_pixel() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    found = [(weight, view[0, :, :, 0].tolist()) for weight, view in views_of("mirror_shift", image)]
    plain = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    down_right = [[4, 3, 4], [1, 0, 1], [4, 3, 4]]  # the first row and column come from the second by reflection
    up_left = [[4, 5, 4], [7, 8, 7], [4, 5, 4]]
    expected = [(weight, view) for weight, view in ((0.25, plain), (0.125, down_right), (0.125, up_left))]
    mirrored = [(weight, [row[::-1] for row in view]) for weight, view in expected]
    assert found[::2] == expected
    assert found[1::2] == mirrored


@pytest.mark.parametrize("name", PARTS)
def test_prediction_is_the_softmax_of_the_mean_logits_of_all_views(tmp_path: Path, name: str) -> None:
    import keras

    model, test = model_of(config(architecture="cnn", filters=[4], padding="same", units=[])), arrays(30)
    save(model, tmp_path / "model.keras", {})
    found = predict(tmp_path / "model.keras", test, PartConfig.model_validate({"name": name, **PARTS[name]}))
    plain = predict(tmp_path / "model.keras", test)
    network = model.layers[-1]
    network.layers[-1].activation = keras.activations.linear
    logits = sum(weight * network.predict(view / 255, verbose=0) for weight, view in views_of(name, test.inputs))
    expected = keras.ops.softmax(logits)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.probabilities.dtype == np.float32
    assert np.array_equal(found.predicted, found.probabilities.argmax(axis=1))
    assert found.predicted_without_tta is not None
    assert np.array_equal(found.predicted_without_tta, plain.predicted)
    assert plain.predicted_without_tta is None
    assert found.model_md5 == plain.model_md5


def test_prediction_from_probabilities_of_zero_is_finite(tmp_path: Path) -> None:
    import keras

    model, test = model_of(config()), arrays(4)
    weights = model.get_weights()
    weights[-1] = np.array([1000, -1000], np.float32)
    model.set_weights(weights)
    save(model, tmp_path / "model.keras", {})
    keras.utils.clear_session()
    found = predict(tmp_path / "model.keras", test, PartConfig(name="mirror"))
    np.testing.assert_allclose(found.probabilities, [[1, 0]] * 4, atol=1e-6)
