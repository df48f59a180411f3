"""Backbones from keras.applications: names, published weights, and the features that Keras itself computes."""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.backbones._networks import BUILT_IN, NETWORKS
from stages.data.extraction import build_backbone
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from tests.conftest import ROOT
from tests.data.random_weights import write_weights

SIZE = 64


def keras_features(name: str, pixels: np.ndarray, patch: pytest.MonkeyPatch, weights: Path) -> tuple[np.ndarray, Any]:
    """What Keras computes with what it takes for ImageNet's weights, and the arguments with which it asked for them."""
    import keras
    from keras.src.utils import file_utils

    asked: list[tuple[str, str]] = []

    def get_file(fname: str, origin: str, file_hash: str | None = None, **others: Any) -> str:
        asked.append((origin, str(file_hash)))
        return str(weights)

    function = getattr(keras.applications, NETWORKS[name].function)
    with patch.context() as patched:
        patched.setattr(file_utils, "get_file", get_file)
        network = function(include_top=False, weights="imagenet", input_shape=(SIZE, SIZE, 3))
    scaled = sys.modules[function.__module__].preprocess_input(pixels.astype("float32"))
    return network.predict(scaled, verbose=0), asked[-1]


def check(name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    weights = write_weights(name, folder / f"{name}.h5")
    expected, asked = keras_features(name, pixels, patch, weights)
    found = build_backbone(name, SIZE, None, "float32", weights)(pixels).numpy()
    assert np.isfinite(found).all() and np.ptp(found, axis=0).max() > 0  # they depend on the image
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    pooled = build_backbone(name, SIZE, "avg", "float32", weights)(pixels).numpy()
    np.testing.assert_allclose(pooled, found.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4 * np.abs(found).max())
    network = NETWORKS[name]
    assert (network.url, network.hash.partition(":")[2] or "None") == asked


@pytest.mark.parametrize("name", ["efficientnetb0", "mobilenetv3small"])  # scaled outside of the layers, and in them
def test_features_are_those_of_keras_with_its_own_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("mobilenet", "mobilenetv2", "mobilenetv3large", "nasnetmobile", "efficientnetv2b0", "convnexttiny", "vgg19"),
        *("resnet50", "resnet50v2", "densenet121", "inceptionv3", "xception"),
    ],
)
def test_features_and_published_weights_of_other_networks_are_those_of_keras(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "inceptionv3":
        monkeypatch.setattr("tests.test_backbones.SIZE", 96)  # it takes no smaller images
    check(name, tmp_path, monkeypatch)


def test_names_are_all_networks_of_keras() -> None:
    import keras

    functions = {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    assert {network.function for network in NETWORKS.values()} == functions


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != BUILT_IN])
def test_published_weights_are_in_the_source_of_keras(name: str) -> None:
    import keras

    network = NETWORKS[name]
    source = inspect.getsource(inspect.getmodule(getattr(keras.applications, network.function)))  # type: ignore[arg-type]
    if name.startswith("resnet"):
        source = inspect.getsource(inspect.getmodule(keras.applications.ResNet50))  # type: ignore[arg-type]
    text = source.replace('"\n    "', "").replace('"\n            "', "")
    assert network.hash.partition(":")[2] in source
    assert network.url.rpartition("/")[0].removesuffix(f"/{name}") in text


def test_small_mobilenet_in_git_needs_no_entry_and_has_the_hash_in_its_readme(tmp_path: Path) -> None:
    import keras

    network = NETWORKS[BUILT_IN]
    path = ROOT / network.url
    digest = network.hash.removeprefix("sha256:")
    assert file_hash(path, "sha256") == digest
    assert digest in (path.parent / "README.md").read_text(encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    original = keras.applications.MobileNetV2(include_top=False, weights=str(path), input_shape=(96, 96, 3), alpha=0.35)
    assert original.count_params() == 410_208
    expected = original.predict(pixels.astype("float32") / 127.5 - 1, verbose=0)
    found = build_backbone(BUILT_IN, 96, None, "float32", path)(pixels).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_weights_of_another_network_and_images_too_small_are_one_line(tmp_path: Path) -> None:
    weights = write_weights("mobilenetv3small", tmp_path / "w.h5")
    with pytest.raises(UserError, match=r"corrupt, or not MobileNet's: .* download_weights@mobilenet`$"):
        build_backbone("mobilenet", SIZE, None, "float32", weights)
    with pytest.raises(UserError, match=r"features: InceptionV3 does not fit images of 32 pixels: .*; choose another"):
        build_backbone("inceptionv3", 32, None, "float32", weights)
