"""`python -m tools.use.predict`: what it prints for files, folders and globs, valid or not."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.inference.image_files import Prediction, find_images
from tests.conftest import ROOT, run, write_params
from tests.data.test_jpeg import encode, make_image, rotated
from tests.inference.models import write_model
from tools.use.predict import csv_lines, table

CLASSES = ["猫", "dog", "=1+1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and photographs, good and bad."""
    folder = tmp_path_factory.mktemp("predict")
    write_params(folder)
    write_model(folder / "a.keras", CLASSES, facts={"source": "synthetic", "not_sure_below": 1.01})
    photos = folder / "photos/Ελλάδα 猫"
    photos.mkdir(parents=True)
    (photos / "eins.JPG").write_bytes(encode(make_image()))
    (photos / "=zwei.webp").write_bytes(encode(make_image(), "WEBP"))
    (photos / "new\nline.jpeg").write_bytes(rotated(make_image()))
    (photos / "corrupt.png").write_bytes(encode(make_image(), "PNG")[:-60])
    (photos / "notes.txt").write_text("no image, and no error: folders contain such files", encoding="utf-8")
    return folder


def predict(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run(folder, sys.executable, "-m", "tools.use.predict", *arguments, PYTHONPATH=str(ROOT), **environment)


def test_files_folders_and_globs_are_predicted_whatever_the_encoding(folder: Path) -> None:
    names = ["photos", "photos/**/e*.JPG", "nowhere.png"]
    done = predict(folder, "a.keras", *names, "--csv", "--top", "2", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    found = {Path(row["file"]).name: row for row in csv.DictReader(done.stdout.splitlines())}
    assert list(found) == ["=zwei.webp", "corrupt.png", "eins.JPG", r"new\nline.jpeg", "nowhere.png"]  # each once
    assert (found["eins.JPG"]["source"], found["eins.JPG"]["verdict"]) == ("synthetic", "not sure")
    assert found["nowhere.png"]["error"] == "does not exist"
    assert found["corrupt.png"]["error"] == "is truncated"
    assert found[r"new\nline.jpeg"]["conversions"] == "EXIF orientation"
    assert float(found["eins.JPG"]["probability_1"]) >= float(found["eins.JPG"]["probability_2"])
    assert {found["eins.JPG"][key].removeprefix("'") for key in ("class_1", "class_2")} <= set(CLASSES)
    errors = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert errors == ["is truncated", "does not exist"]


def test_no_valid_image_is_an_error_after_the_lines(folder: Path) -> None:
    done = predict(folder, "a.keras", "params.yaml", "/dev/stdin", "photos/Ελλάδα 猫/corrupt.png")
    assert done.returncode == 1
    assert [line.split("  invalid: ")[-1] for line in done.stdout.splitlines()] == [
        "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF",
        "is not a file",
        "is truncated",
    ]
    assert done.stderr.splitlines()[-1] == "error: none of 3 files is a valid image; the lines above say why"
    assert "Traceback" not in done.stderr


def test_wrong_arguments_are_one_line_before_tensorflow_is_imported(folder: Path) -> None:
    (folder / "empty").mkdir()
    for arguments, message in (
        (["b", "photos"], "data/models/b.keras: no such model; run `dvc repro train@b` or `dvc pull`"),
        (["a.keras", "photos", "--top", "0"], "--top 0: choose a positive number"),
        (["a.keras"], "no images are given; name files or folders, as in IMAGES=photos"),
        (["a.keras", "empty"], "empty: no images; name files or other folders"),
    ):
        done = predict(folder, *arguments)
        assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def predictions() -> list[Prediction]:
    shares = np.array([0.25, 0.0, 0.75], np.float32)
    names = ["=cmd|' /C calc'!A0.png", "猫\u200d猫.png", "a\nb\udcff.png", "-1.png"]
    found = [Prediction(Path(names[0]), shares, [], verdict="not sure"), Prediction(Path(names[1]), shares, [])]
    found.append(Prediction(Path(names[2]), shares, ["palette", "transparency"]))
    return [*found, Prediction(Path(names[3]), None, [], "is truncated")]


def test_every_answer_of_a_model_trained_on_synthetic_data_says_so() -> None:
    last = "The model was trained on synthetic data: its answers say nothing about real images."
    for source in ("synthetic", "real", None):
        text = list(table(predictions(), CLASSES, 2, source))
        rows = list(csv.DictReader(csv_lines(predictions(), CLASSES, 2, source)))
        assert (text[-1] == last, len(text)) == (source == "synthetic", 4 + (source == "synthetic"))
        assert [row["source"] for row in rows] == [source or ""] * 4


def test_cells_of_csv_are_no_formulas_and_rows_are_lines() -> None:
    lines = list(csv_lines(predictions(), CLASSES, 2, "synthetic"))
    assert len(lines) == 5 and not any("\n" in line for line in lines)
    header, *rows = csv.reader(io.StringIO("\n".join(lines)))
    assert header == [
        "file",
        "error",
        "verdict",
        "conversions",
        "source",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
    ]
    assert rows[0] == [
        "'=cmd|' /C calc'!A0.png",
        "",
        "not sure",
        "",
        "synthetic",
        "'=1+1",
        "0.750000",
        "猫",
        "0.250000",
    ]
    assert rows[1][0] == "猫\u200d猫.png"  # without a width, and part of many names
    assert rows[2][0] == r"a\nb\udcff.png" and rows[2][3] == "palette; transparency"
    assert rows[3] == ["'-1.png", "is truncated", "", "", "synthetic", "", "", "", ""]


def test_columns_of_the_table_stand_below_each_other() -> None:
    lines = list(table(predictions(), CLASSES, 2, "real", width=30))
    assert lines[0].startswith("=cmd|' /C calc'!A0.png  ") and lines[0].endswith(
        "  =1+1  75.00%   猫     25.00%  (not sure)"
    )
    assert lines[2].startswith(r"a\nb\udcff.png ") and lines[2].endswith("(palette, transparency)")
    assert lines[3].endswith("  invalid: is truncated")
    assert lines[0].index("=1+1") == lines[2].index("=1+1") == lines[3].index("invalid") == 32


def test_a_folder_stands_for_its_images_sorted_and_each_file_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names = [path.name for path in find_images(["photos", "photos/*/*.webp", "params.yaml", "*.none"])]
    assert names == ["=zwei.webp", "corrupt.png", "eins.JPG", "new\nline.jpeg", "params.yaml", "*.none"]


def test_globs_in_a_folder_with_brackets_and_files_that_systems_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "._a.png", "@eaDir/a.png/THUMB.png", "b[1].png", "#recycle/c.png", ".cache/d.jpg", "e.tif"):
        (tmp_path / "photos [2024]" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos [2024]" / name).touch()
    monkeypatch.chdir(tmp_path)
    for pattern in ("photos [2024]", "photos [2024]/**/*.*", "*/*.*", str(tmp_path / "photos [2024]/*")):
        assert [path.name for path in find_images([pattern])] == ["a.png", "b[1].png", "e.tif"], pattern
    assert len(find_images(["photos [2024]/._a.png", "photos [2024]/b[1].png"])) == 2


def test_a_folder_that_cannot_be_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos/private").mkdir(parents=True, mode=0o755)
    (tmp_path / "photos/a.png").write_bytes(encode(make_image(), "PNG"))
    (tmp_path / "photos/private").chmod(0)
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:  # may read everything
            os.seteuid(65534)
        found = find_images(["photos"])
    finally:
        os.seteuid(user)
        (tmp_path / "photos/private").chmod(0o700)
    assert found == [Path("photos/a.png"), Path("photos/private")]
