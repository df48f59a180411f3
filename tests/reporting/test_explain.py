"""Heat maps for the report: their images are those of the evaluation, and lie where the heat is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.data import reader, writer
from stages.reporting import explain
from tests.data.test_jpeg import encode, make_image


def test_inputs_are_those_of_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [encode(make_image(mode, (40 + number, 30))) for number, mode in enumerate(("RGB", "L", "RGB"))]
    writer.write("photos", ["a"], ["test"], [("test", str(number), file, 0) for number, file in enumerate(files)])
    test = reader.load("photos", "test", 16)
    found = explain.model_inputs("photos", 16, {"0", "1"})
    assert sorted(found) == ["0", "1"]
    for key, pixels in zip(test.keys, test.inputs, strict=True):
        if key in found:
            np.testing.assert_array_equal(found[key], pixels)


def test_overlay_is_orange_where_the_heat_is_and_else_the_image() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[:2, :2] = 1
    image = Image.new("L", (12, 8), 100)  # of which the centered square is shown
    found = np.asarray(explain.overlay(image, heat))
    assert found.shape == (8, 8, 3)
    np.testing.assert_array_equal(found[6:, 6:], np.full((2, 2, 3), 100))
    np.testing.assert_array_equal(found[0, 0], np.round(0.35 * 100 + 0.65 * np.array([255, 80, 0])))
