"""Predictions are read as they were written."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.evaluation import predictions
from stages.runtime import paths
from stages.runtime.errors import UserError
from tests.reporting.project import make_predictions


def some(images: int, classes: int) -> predictions.Predictions:
    random = np.random.default_rng(0)
    names = [f"class {number} {'x' * 100}" for number in range(classes)]
    return make_predictions(random.integers(0, classes, images), random.random((images, classes)), names)


@pytest.mark.parametrize(("images", "classes", "values"), [(5, 3, 2**26), (20, 3, 12), (3, 15_000, 2**26)])
def test_written_predictions_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, classes: int, values: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictions, "GROUP_VALUES", values)
    written = some(images, classes)
    predictions.write(paths.predictions("m"), written)
    for found in (predictions.read("m"), predictions.parse(io.BytesIO(paths.predictions("m").read_bytes()))):
        for field in ("keys", "true", "predicted", "confidence"):
            assert (getattr(found, field) == getattr(written, field)).all(), field
            assert getattr(found, field).dtype == getattr(written, field).dtype, field
        assert np.array_equal(found.probabilities, written.probabilities)
        assert found.probabilities.dtype == np.float32
        assert (found.classes, found.model_md5) == (written.classes, written.model_md5)
        assert (found.parameters, found.compute_dtype) == (79510, "float32")


def test_a_table_that_pandas_reads_has_the_columns(tmp_path: Path) -> None:
    predictions.write(tmp_path / "m.parquet", some(5, 3))
    table = pd.read_parquet(tmp_path / "m.parquet")
    assert list(table) == ["key", "true", "predicted", "probabilities"]
    assert table.attrs == {
        "parameters": 79510,
        "model": "0" * 32,
        "compute_dtype": "float32",
        "validation_images": 500,
        "temperature": 1.0,
        "not_sure_below": None,
    }
    assert table["probabilities"][0].dtype == np.float32


def test_predictions_without_tta_are_a_column_only_of_models_with_tta(tmp_path: Path) -> None:
    plain = some(20, 3)
    written = replace(plain, predicted_without_tta=np.flip(plain.predicted))
    predictions.write(tmp_path / "plain.parquet", plain)
    predictions.write(tmp_path / "tta.parquet", written)
    table = pd.read_parquet(tmp_path / "tta.parquet")
    assert list(table) == ["key", "true", "predicted", "probabilities", "predicted_without_tta"]
    with (tmp_path / "tta.parquet").open("rb") as file:
        found = predictions.parse(file).predicted_without_tta
    assert found is not None and found.dtype == np.int32
    assert np.array_equal(found, np.flip(plain.predicted))
    with (tmp_path / "plain.parquet").open("rb") as file:
        assert predictions.parse(file).predicted_without_tta is None


def test_missing_and_corrupt_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = paths.predictions("m")
    with pytest.raises(UserError, match=r"^data/predictions/m.parquet: missing; run `dvc repro train@m` or `dvc pull`"):
        predictions.read("m")
    predictions.write(path, some(200, 10))
    good = path.read_bytes()
    frame = pd.read_parquet(path)
    frame["predicted"] = frame["predicted"].cat.remove_unused_categories().cat.add_categories("other")
    other = io.BytesIO()
    frame.to_parquet(other, index=False)
    flipped = good[:3000] + bytes([good[3000] ^ 1]) + good[3001:]
    plain = io.BytesIO()
    pd.DataFrame({"key": ["a"]}).to_parquet(plain)
    for content in (b"", b"PAR1 and so on PAR1", good[:-9], flipped, other.getvalue(), plain.getvalue()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^data/predictions/m.parquet: corrupt: .*--single-item train@m`$"):
            predictions.read("m")
