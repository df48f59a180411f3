"""Backbones from keras.applications: names, published weights, and the features that Keras itself computes."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.backbones._applications import FUNCTIONS, NETWORKS
from stages.config.datasets import WeightsConfig
from stages.config.plugins import load_plugin
from stages.data.extraction import build_backbone
from stages.runtime.errors import UserError
from tests.conftest import ROOT

SIZE = 64
DOCUMENTED = {  # the entries of docs/transfer.md
    name: entry
    for block in re.findall(
        r"^```yaml\n(weights:\n.*?)^```", (ROOT / "docs/transfer.md").read_text(encoding="utf-8"), re.M | re.S
    )
    for name, entry in YAML(typ="safe").load(block)["weights"].items()
}


def weights_of(name: str, folder: Path) -> Path:
    """Synthetic weights in a file that Keras would take for its own."""
    mirrors = [{"url": "http://127.0.0.1/w.h5", "hash": f"md5:{0:032}"}]
    entry = WeightsConfig.model_validate({"synthetic": True, "files": {f"{name}.h5": mirrors}})
    ((file, content),) = load_plugin("data.synthetic", "_applications").generate(name, entry).items()
    (folder / file).write_bytes(content)
    return folder / file


def keras_features(name: str, pixels: np.ndarray, patch: pytest.MonkeyPatch, weights: Path) -> tuple[np.ndarray, Any]:
    """What Keras computes with what it takes for ImageNet's weights, and the arguments with which it asked for them."""
    import keras
    from keras.src.utils import file_utils

    asked: list[tuple[str, str]] = []

    def get_file(fname: str, origin: str, file_hash: str | None = None, **others: Any) -> str:
        asked.append((origin, str(file_hash)))
        return str(weights)

    function = getattr(keras.applications, NETWORKS[name])
    with patch.context() as patched:
        patched.setattr(file_utils, "get_file", get_file)
        network = function(include_top=False, weights="imagenet", input_shape=(SIZE, SIZE, 3))
    scaled = sys.modules[function.__module__].preprocess_input(pixels.astype("float32"))
    return network.predict(scaled, verbose=0), asked[-1]


def check(name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    weights = weights_of(name, folder)
    expected, asked = keras_features(name, pixels, patch, weights)
    found = build_backbone(name, SIZE, None, "float32", weights)(pixels).numpy()
    assert np.isfinite(found).all() and np.ptp(found, axis=0).max() > 0  # they depend on the image
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    pooled = build_backbone(name, SIZE, "avg", "float32", weights)(pixels).numpy()
    np.testing.assert_allclose(pooled, found.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4 * np.abs(found).max())
    if name in DOCUMENTED:
        ((file, (mirror,)),) = DOCUMENTED[name]["files"].items()
        assert (mirror["url"], mirror["hash"].partition(":")[2]) == asked
        assert mirror["url"].endswith(f"/{file}")


@pytest.mark.parametrize("name", ["efficientnetb0", "mobilenetv3small"])  # scaled outside of the layers, and in them
def test_features_are_those_of_keras_with_its_own_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*DOCUMENTED, "vgg19", "resnet50v2", "mobilenetv2", "nasnetmobile"}))
def test_features_and_published_weights_of_other_networks_are_those_of_keras(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "inceptionv3":
        monkeypatch.setattr("tests.test_backbones.SIZE", 96)  # it takes no smaller images
    check(name, tmp_path, monkeypatch)


def test_names_are_all_networks_of_keras() -> None:
    import keras

    functions = {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    assert set(FUNCTIONS) == functions


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_weights_are_in_the_source_of_keras(name: str) -> None:
    import keras

    source = inspect.getsource(inspect.getmodule(getattr(keras.applications, NETWORKS[name])))  # type: ignore[arg-type]
    ((file, (mirror,)),) = WeightsConfig.model_validate(DOCUMENTED[name]).files.items()
    assert mirror.hash.partition(":")[2] in source
    assert mirror.url.removesuffix(f"/{file}").removesuffix(f"/{name}") in source.replace('"\n    "', "")


def test_weights_of_another_network_and_images_too_small_are_one_line(tmp_path: Path) -> None:
    weights = weights_of("mobilenetv3small", tmp_path)
    with pytest.raises(UserError, match=r"corrupt, or not MobileNet's: .* download_weights@mobilenet`$"):
        build_backbone("mobilenet", SIZE, None, "float32", weights)
    with pytest.raises(UserError, match=r"features: InceptionV3 does not fit images of 32 pixels: .*; choose another"):
        build_backbone("inceptionv3", 32, None, "float32", weights)
