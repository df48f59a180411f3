"""The stage preprocess_folder: records of your own images, and what a change of the folder makes DVC do."""

import io
import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from stages import preprocess_folder
from stages.config import params
from stages.config.datasets import is_formula
from stages.data import jpeg, reader
from stages.data.convert import decode
from stages.inference.predictor import Predictor
from stages.prediction.saved_model import save
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.training import train_model
from tests.conftest import clone_of_work_tree, run, write_params
from tests.data.photos import CLASSES, draw, write_photos
from tests.data.test_folder import image, names, write
from tests.data.test_jpeg import encode, make_image

STAGE = "preprocess_folder@flowers"


def add_folder(values: Any, **options: Any) -> None:
    entry = {"path": "../flowers", "classes": list(CLASSES), "test_fraction": 0.2}
    values["folders"] = {"flowers": {**entry, **options}}


def test_changed_folder_and_corrections_are_stale_but_not_another_place(tmp_path: Path) -> None:
    write_photos(tmp_path / "flowers", 12)
    clone = clone_of_work_tree(tmp_path / "clone", add_folder)
    failed = run(clone, "python", "-m", "stages.preprocess_folder", STAGE)
    assert "'tulip/tulip_004.jpg' is truncated; remove it, or set skip_invalid_images: true" in failed.stderr
    (tmp_path / "flowers/tulip/tulip_004.jpg").unlink()
    first = run(clone, "dvc", "repro", STAGE)
    assert "train: " in first.stdout, first.stderr
    # Clone and images move together: nothing is stale.
    (tmp_path / "elsewhere").mkdir()
    for name in ("clone", "flowers"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    clone, photos = tmp_path / "elsewhere/clone", tmp_path / "elsewhere/flowers"
    assert run(clone, "dvc", "status", STAGE).stdout == "Data and pipelines are up to date.\n"
    draw("rose", np.random.default_rng(7)).save(photos / "rose/new.png")
    assert "modified" in run(clone, "dvc", "status", STAGE).stdout
    second = run(clone, "dvc", "repro", STAGE)
    assert "train: " in second.stdout, second.stderr
    write(clone, {"data/corrections/flowers.csv": b"file,suggested_label\nrose/new.png,drop\n"})
    assert "data/corrections" in run(clone, "dvc", "status", STAGE).stdout


def test_photos_of_any_kind_are_records(project: Path) -> None:
    more = {"cat/gray.png": image(1, "PNG", "L"), "dog/deep.png": sixteen_bits(project)}
    write(project / "pets", {**names(6), **more, "dog/broken.jpg": b"x"})

    def change(values: Any, dog: str = "SUM") -> None:
        add_folder(values, path="pets", classes={"cat": "a cat", "dog": dog})
        values["skip_invalid_images"] = True

    write_params(project, partial(change, dog="=SUM(A1)"))
    with pytest.raises(UserError, match=r"'=SUM\(A1\)' starts like a formula"):
        preprocess_folder.preprocess_folder("flowers")
    write_params(project, change)
    preprocess_folder.preprocess_folder("flowers")
    assert reader.info("flowers").features["label"].names == ["a cat", "SUM"]
    found = {
        example["key"].decode(): example["input"]
        for split in ("train", "test")
        for example in reader.read("flowers", split).as_numpy_iterator()
    }
    assert set(found) == {*names(6), *more}
    assert all(pixels.shape == (12, 20, 3) for key, pixels in found.items() if key != "dog/deep.png")
    assert found["dog/deep.png"].shape == (5, 4, 3) and (found["dog/deep.png"] == 200).all()
    skipped = json.loads(Path("data/skipped/flowers.json").read_text(encoding="utf-8"))
    assert {key for split in skipped.values() for key in split} == {"dog/broken.jpg"}


def noise(seed: int, mode: str, kind: str = "JPEG", orientation: int = 1, **options: Any) -> bytes:
    """A picture of 48 × 48 pixels with details that decoders round differently."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, exif=exif, **options)
    return file.getvalue()


FACES = {f"{name}/{index}.jpg": noise(index, "L") for name in ("cat", "dog") for index in range(4)}
OF_ANY_MODE = {
    "cat/cmyk.jpg": noise(1, "CMYK"),
    "cat/cmyk_turned.jpg": noise(2, "CMYK", orientation=6),
    "cat/gray_turned.jpg": noise(3, "L", orientation=3),
    "cat/rgb.jpg": noise(4, "RGB", keep_rgb=True),
    "cat/fine.jpg": noise(5, "RGB", subsampling=0, progressive=True),
    "cat/turned.jpg": noise(6, "RGB", orientation=8),
    "cat/clear.png": noise(7, "RGBA", "PNG"),
    "cat/lossy.webp": noise(8, "RGB", "WEBP"),
    "cat/palette.gif": noise(9, "P", "GIF"),
    "cat/scan.tif": noise(10, "CMYK", "TIFF"),
}


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        (FACES, 1),
        (FACES | {"cat/turned.jpg": noise(9, "L", orientation=6), "dog/a.png": noise(8, "L", "PNG")}, 1),
        (FACES | OF_ANY_MODE, 3),
    ],
    ids=["gray", "gray of several formats", "any mode"],
)
def test_predictions_see_the_pixels_of_the_records_in_every_mode(
    project: Path, files: dict[str, bytes], channels: int
) -> None:
    write(project / "pets", files)
    write_params(project, lambda values: add_folder(values, path="pets", classes=["cat", "dog"]))
    preprocess_folder.preprocess_folder("flowers")
    check_predictions_see_the_records(files, channels)


def test_jpeg_file_that_is_too_large_for_tensorflow_trains_and_predicts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg, "TENSORFLOW_PIXELS", 240)  # stands for 134 million
    files = names(3) | {"cat/wide.jpg": encode(make_image("RGB", (20, 11)))}
    write(project / "pets", files)
    write_params(project, lambda values: add_folder(values, path="pets", classes=["cat", "dog"]))
    preprocess_folder.preprocess_folder("flowers")
    stored = {key: data for split in ("train", "test") for key, _, data in reader.examples("flowers", split, False)}
    assert [key for key, data in stored.items() if data == files[key]] == ["cat/wide.jpg"]
    check_predictions_see_the_records(files, 3)


def check_predictions_see_the_records(files: dict[str, bytes], channels: int) -> None:
    """Compare the pixels that a prediction sees of each file with those of its record."""
    records = [example for split in ("train", "test") for example in reader.read("flowers", split).as_numpy_iterator()]
    assert len(records) == len(files)
    for example in records:
        key = example["key"].decode()
        np.testing.assert_array_equal(decode(files[key], channels)[0], example["input"], key)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_fit_of_the_entry_is_obeyed_where_images_are_read_and_predicted(project: Path, fit: str) -> None:
    strip = encode(make_image("RGB", (400, 4)), "PNG")  # less than a pixel of eight thick
    files = names(4) | {"cat/tall.png": image(1, "PNG"), "dog/wide.webp": image(2, "WEBP"), "dog/strip.png": strip}
    write(project / "pets", files)
    write_params(project, lambda values: add_folder(values, path="pets", classes=["cat", "dog"], fit=fit))
    preprocess_folder.preprocess_folder("flowers")
    assert paths.fit("flowers").exists() == (fit != "crop")
    examples = [
        example for split in ("train", "test") for example in reader.read("flowers", split, 8).as_numpy_iterator()
    ]
    on_disk = reader.load("flowers", "train", 8, memory=0)

    def seen(key: str) -> np.ndarray:
        return reader.resize(decode(files[key], 3)[0], 8, fit).numpy()

    for example in examples:
        np.testing.assert_array_equal(seen(example["key"].decode()), example["input"])
    np.testing.assert_array_equal(on_disk.inputs, [each["input"] for each in examples][: len(on_disk)])
    black = (np.stack([example["input"] for example in examples]) == 0).all((2, 3)).any()
    assert black == (fit == "pad")  # images of 20 × 12 pixels
    model = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(2)])
    config = params.load().models["mnist_dense"].model_copy(update={"dataset": "flowers"})
    training: Any = SimpleNamespace(model=config, synthetic=False, kernels="native")
    signature = train_model._signature(training, ["a", "b"], (8, 8, 3))
    save(model, project / "a.keras", signature)
    predictor = Predictor(project / "a.keras", tf.config.threading.get_intra_op_parallelism_threads())
    np.testing.assert_array_equal(predictor.decode(files["cat/000.jpg"])[0], seen("cat/000.jpg"))


HEADER = "file,label,suggested_label,reason\n"


def test_corrections_relabel_and_drop_and_move_no_image(project: Path) -> None:
    write(project / "pets", names(10))
    table = project / "data/corrections/flowers.csv"

    def records() -> dict[tuple[str, str], int]:
        classes = {"cat": "a cat", "dog": "a dog"}
        write_params(project, lambda values: add_folder(values, path="pets", classes=classes))
        preprocess_folder.preprocess_folder("flowers")
        return {
            (split, example["key"].decode()): int(example["label"])
            for split in ("train", "test")
            for example in reader.read("flowers", split).as_numpy_iterator()
        }

    before = records()
    table.parent.mkdir(exist_ok=True)
    table.write_text(
        f"\ufeff{HEADER.replace(',', ';')}cat/000.jpg;cat;dog;audit\n"
        "dog/001.jpg;a dog;a cat;\ndog/002.jpg;;drop;\ncat/003.jpg;cat;;\n",
        encoding="utf-8",
    )
    after = records()
    changed = {
        key: label
        for (_, key), label in after.items()
        if before.get(("train", key), before.get(("test", key))) != label
    }
    assert changed == {"cat/000.jpg": 1, "dog/001.jpg": 0}
    assert {key for _, key in set(before) - set(after)} == {"dog/002.jpg"} and set(after) < set(before)
    for row, message in {
        "cat/999.jpg,,dog,": "line 2: 'cat/999.jpg' is no image of the dataset, or remove the line",
        "cat/000.jpg,,god,": "line 2: 'god' is no class; write one of cat, dog, drop or nothing",
        "cat/000.jpg,dog,cat,": "line 2: 'cat/000.jpg' has the label 'cat', not 'dog'; remove the line",
        "cat/000.jpg,,dog,\ncat/000.jpg,,cat,": "line 3: 'cat/000.jpg' is corrected twice; remove one",
        'cat/000.jpg,,dog,"two\nlines"\ncat/1.jpg,,,': "line 4: 'cat/1.jpg' is no image",
        "cat/000.jpg,,dog,a,b": "row 1: it has 5 values for 4 columns",
    }.items():
        table.write_text(f"{HEADER}{row}\n", encoding="utf-8")
        with pytest.raises(UserError, match=f"^data/corrections/flowers.csv: {re.escape(message)}"):
            preprocess_folder.preprocess_folder("flowers")


def test_suspects_of_an_audit_are_a_table_of_corrections(project: Path) -> None:
    """Copied as it is: a label that the audit suggests, and one that a person has to choose."""
    from stages.auditing import findings

    def labels() -> dict[str, tuple[str, int]]:
        preprocess_folder.preprocess_folder("flowers")
        return {
            example["key"].decode(): (split, int(example["label"]))
            for split in ("train", "test")
            for example in reader.read("flowers", split).as_numpy_iterator()
        }

    write(project / "pets", {name.replace("cat/", "=cat/"): data for name, data in names(10).items()})
    write_params(project, lambda values: add_folder(values, path="pets", classes={"=cat": "cat", "dog": "dog"}))
    before = labels()
    keys = ["=cat/000.jpg", "=cat/001.jpg", "=cat/000.jpg"]
    rows = [
        (before[keys[0]][0], keys[0], "cat", "label_error", 0.02, None, None, "dog"),
        (before[keys[1]][0], keys[1], "cat", "conflicting_labels", 1.0, "train", "dog/000.jpg", "dog"),
        (before[keys[2]][0], keys[2], "cat", "conflicting_labels", 1.0, "train", "dog/000.jpg", "dog"),
    ]
    findings.write("flowers", pd.DataFrame(rows, columns=list(findings.COLUMNS)), 0.9)
    write(project, {"data/corrections/flowers.csv": paths.suspects("flowers").read_bytes()})
    assert not any(is_formula(cell) for row in pd.read_csv(paths.suspects("flowers")).values for cell in map(str, row))
    after = labels()
    assert {key for key in before if before[key] != after[key]} == {"=cat/000.jpg"}
    # The next audit lists the pair again, the relabeled image with its new label
    again = pd.DataFrame([rows[1], (*rows[2][:2], "dog", *rows[2][3:])], columns=list(findings.COLUMNS))
    findings.write("flowers", again, 0.9)
    _, _, added = paths.suspects("flowers").read_bytes().partition(b"\n")
    with paths.corrections("flowers").open("ab") as file:
        file.write(added)
    assert labels() == after
    assert findings.read("flowers").attrs == {findings.ACCURACY: 0.9}


def test_corrections_of_a_dataset_with_splits_name_the_split(project: Path) -> None:
    write(project / "pets", {f"{split}/{name}": data for split in ("train", "test") for name, data in names(2).items()})
    options = {
        "path": "pets",
        "classes": ["cat", "dog"],
        "test_fraction": None,
    }
    write_params(project, lambda values: add_folder(values, **options))
    write(project, {"data/corrections/flowers.csv": b"file,suggested_label\ncat/000.jpg,dog\n"})
    with pytest.raises(UserError, match=r"line 2: 'cat/000.jpg' is the name of 2 images; add a column split"):
        preprocess_folder.preprocess_folder("flowers")
    for table in (
        b"file,suggested_label\ntest/cat/000.jpg,drop\n",
        b"split,file,suggested_label\ntest,cat/000.jpg,drop\n",
    ):
        write(project, {"data/corrections/flowers.csv": table})
        preprocess_folder.preprocess_folder("flowers")
        assert {name: split.num_examples for name, split in reader.info("flowers").splits.items()} == {
            "train": 4,
            "test": 3,
        }


def test_validation_images_are_counted_and_skipped_as_others(project: Path) -> None:
    files = {f"{split}/{name}": data for split in ("train", "val", "test") for name, data in names(3).items()}
    write(project / "pets", {**files, "val/dog/broken.jpg": b"x"})

    def change(values: Any, skip: bool = True) -> None:
        add_folder(values, path="pets", classes=["cat", "dog"], test_fraction=None)
        values["skip_invalid_images"] = skip

    write_params(project, partial(change, skip=False))
    with pytest.raises(UserError, match=r"^pets: validation: 'dog/broken.jpg' is not an image .* remove it"):
        preprocess_folder.preprocess_folder("flowers")
    write_params(project, change)
    preprocess_folder.preprocess_folder("flowers")
    assert {name: split.num_examples for name, split in reader.info("flowers").splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 6
    )
    counts = json.loads(Path("data/counts/flowers.json").read_text(encoding="utf-8"))
    assert list(counts) == ["train", "validation", "test"] and counts["validation"] == {"cat": 3, "dog": 3}
    skipped = json.loads(Path("data/skipped/flowers.json").read_text(encoding="utf-8"))
    assert list(skipped["validation"]) == ["dog/broken.jpg"]
    write(project / "pets", {name: b"x" for name in files if name.startswith("val/")})
    with pytest.raises(UserError, match=r"^flowers: split 'validation' has no images"):
        preprocess_folder.preprocess_folder("flowers")


def test_limit_of_pixels_is_a_param(project: Path) -> None:
    write(project / "pets", names(3))

    def change(values: Any, limit: int) -> None:
        add_folder(values, path="pets", classes=["cat", "dog"])
        values["max_pixels"] = limit

    write_params(project, partial(change, limit=240))
    preprocess_folder.preprocess_folder("flowers")
    write_params(project, partial(change, limit=239))
    with pytest.raises(UserError, match="has 20 x 12 pixels, more than 239"):
        preprocess_folder.preprocess_folder("flowers")


def sixteen_bits(folder: Path) -> bytes:
    Image.fromarray(np.full((5, 4), 200 << 8 | 17, np.uint16)).save(folder / "deep.png")
    return (folder / "deep.png").read_bytes()


def test_dataset_without_images_to_test_with_is_one_line(project: Path) -> None:
    write(project / "pets", names(1))
    write_params(project, lambda values: add_folder(values, path="pets", classes=["cat", "dog"]))
    with pytest.raises(UserError, match=r"^flowers: split 'test' has no images; check pets$"):
        preprocess_folder.preprocess_folder("flowers")
