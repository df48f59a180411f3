"""Heat maps for the report: their images are those of the evaluation."""

from pathlib import Path

import numpy as np
import pytest

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
