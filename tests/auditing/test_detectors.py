"""The detectors find planted faults in records, and little else."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from stages.auditing import duplicates, findings, labels, quality
from stages.auditing.images import Images, describe, thumbnail
from stages.runtime.errors import UserError
from tests.auditing.planted import CLASSES, shapes


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(train: Any, test: Any, train_labels: Any = None, test_labels: Any = None, name: str = "shapes") -> Images:
    """Write records whose keys are the positions of the images, and describe them."""
    from stages.data import writer

    examples = [
        (split, f"{at}", pixels, int(given[at]) if given is not None else at % 2)
        for split, images, given in (("train", train, train_labels), ("test", test, test_labels))
        for at, pixels in enumerate(images)
    ]
    writer.write(name, CLASSES, ["train", "test"], examples)
    return describe(name)


def named(found: pd.DataFrame, images: Images, kind: str) -> set[tuple[str, str, str | None, str | None]]:
    """Split and key of the images and of their partners."""
    rows = findings.table(found.assign(predicted=-1) if "predicted" not in found else found, images)
    rows = rows[rows["kind"] == kind]
    columns = ["split", "key", "partner_split", "partner_key"]
    return {tuple(row) for row in rows[columns].astype(object).where(rows[columns].notna(), None).to_numpy()}


def jpeg(pixels: np.ndarray, quality: int = 60) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_exact_duplicates_within_and_across_splits_and_their_conflicts_are_found() -> None:
    train, labels_ = shapes(20, 0)
    test, test_labels = shapes(10, 1)
    train[7], test[4], test[5] = train[3], train[3], test[2]  # 3 and 7 have the same label, 2 and 5 have not
    images = written(train, test, labels_, test_labels)
    found = duplicates.find(images, 0.8, 0.35)
    first, second = sorted(("3", "7"), key=list(images.keys[images.split == 0]).index)
    earlier, later = sorted(("2", "5"), key=list(images.keys[images.split == 1]).index)
    expected = {("train", second, "train", first), ("test", "4", "train", first), ("test", later, "test", earlier)}
    assert named(found, images, "exact_duplicate") == expected
    conflicts = {("test", later, "test", earlier), ("test", "4", "train", first)}
    assert named(found, images, "conflicting_labels") == conflicts
    assert named(found, images, "near_duplicate") == set()


@pytest.mark.parametrize(
    "change",
    [
        jpeg,
        lambda pixels: pixels[:, ::-1],
        lambda pixels: np.clip(pixels * 0.7 + 30, 0, 255).astype(np.uint8),
        lambda pixels: np.asarray(Image.fromarray(pixels).resize((48, 48))),
    ],
    ids=["jpeg", "mirror", "brightness", "size"],
)
def test_changed_copies_are_near_duplicates_and_other_images_are_not(change: Any) -> None:
    train, test = shapes(200, 0)[0], shapes(60, 1)[0]
    files = {"train": list(train), "test": list(test)}
    for at in range(5):
        files["test"][at] = change(train[10 + at])
    encoded: dict[str, list[bytes]] = {}
    for split, each in files.items():  # as JPEG files, whose sizes may differ
        encoded[split] = []
        for pixels in each:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
            encoded[split].append(buffer.getvalue())
    images = written(encoded["train"], encoded["test"])
    found = named(duplicates.find(images, 0.8, 0.35), images, "near_duplicate")
    assert found == {("test", f"{at}", "train", f"{10 + at}") for at in range(5)}


def test_duplicate_is_a_fault_of_the_later_of_three_splits() -> None:
    from stages.data import writer

    pixels = shapes(30, 0)[0]
    pixels[10], pixels[20], pixels[21] = pixels[0], pixels[0], pixels[11]
    splits = ["train"] * 10 + ["validation"] * 10 + ["test"] * 10
    examples = [(split, f"{at}", pixels[at], at % 2) for at, split in enumerate(splits)]
    writer.write("shapes", CLASSES, ["train", "validation", "test"], examples)
    images = describe("shapes")
    assert images.splits == ["train", "validation", "test"]
    found = duplicates.find(images, 0.8, 0.35)
    assert named(found, images, "exact_duplicate") == {
        ("validation", "10", "train", "0"),
        ("test", "20", "train", "0"),
        ("test", "20", "validation", "10"),
        ("test", "21", "validation", "11"),
    }
    rows = findings.table(found.assign(predicted=-1), images)
    assert findings.counts(rows, images.splits)["exact_duplicate"] == {
        **{"train": 0, "validation": 0, "test": 0},
        **{"test-train": 1, "test-validation": 2, "validation-train": 1},
    }
    assert findings.with_training_duplicate(rows) == {"20"}
    _, accuracy = labels.find(images, "shapes", False, 3)
    assert 0 <= accuracy <= 1


def test_thumbnail_of_a_mirrored_image_is_the_mirrored_thumbnail() -> None:
    for side in (28, 45, 100):  # no multiples of the thumbnail's side
        image = Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.uint8))
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert (thumbnail(mirrored) == thumbnail(image)[:, ::-1]).all()


def test_copy_of_an_exact_duplicate_is_near_to_both_splits() -> None:
    train, test = shapes(100, 0)[0], shapes(40, 1)[0]
    test[0], test[1] = train[0], jpeg(train[0])
    images = written(train, test)
    found = duplicates.find(images, 0.8, 0.35)
    assert named(found, images, "exact_duplicate") == {("test", "0", "train", "0")}
    rows = findings.table(found.assign(predicted=-1), images)
    assert findings.with_training_duplicate(rows) == {"0", "1"}
    near = rows[rows["kind"] == "near_duplicate"]
    assert {*near["split"] + near["key"]} <= {"test0", "test1"} and set(near["partner_split"]) == {"train", "test"}


def test_many_copies_of_one_image_are_found_however_dense_they_are() -> None:
    train, test = shapes(100, 0)[0], shapes(20, 1)[0]
    random = np.random.default_rng(2)
    for at in range(20):
        train[at] = np.clip(train[0].astype(float) + random.normal(0, 1, train[0].shape), 0, 255)
    images = written(train, test)
    found = named(duplicates.find(images, 0.8, 0.35), images, "near_duplicate")
    assert {key for pair in found for key in (pair[1], pair[3])} == {f"{at}" for at in range(20)}


def test_bad_images_are_found_by_kind_and_ordinary_ones_are_not() -> None:
    train, test = shapes(60, 0)[0], shapes(20, 1)[0]
    train[0] = train[0] // 12
    train[1] = 255 - (255 - train[1]) // 30
    train[2] = 37
    train[3] = np.asarray(Image.fromarray(train[3]).filter(ImageFilter.GaussianBlur(4)))
    train[4] = 128 + np.random.default_rng(0).normal(0, 2, train[4].shape)
    images = written(train, test)
    found = quality.find(images.measures)
    by_kind = {kind: {pair[:2] for pair in named(found, images, kind)} for kind in found["kind"].unique()}
    expected = {"dark": "02", "bright": "1", "low_information": "2", "low_contrast": "0124"}
    assert by_kind.pop("blurred") >= {("train", "3")}
    assert by_kind == {kind: {("train", key) for key in keys} for kind, keys in expected.items()}


def test_oddly_shaped_image_is_found() -> None:
    def encode(width: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(width).integers(0, 255, (40, width, 3)).astype(np.uint8)).save(
            buffer, "JPEG"
        )
        return buffer.getvalue()

    images = written([encode(400), *map(encode, range(40, 60))], [encode(39)])
    assert named(quality.find(images.measures), images, "odd_shape") == {("train", "0", None, None)}


def test_planted_label_errors_are_found_with_their_labels() -> None:
    train, given = shapes(400, 0)
    test, test_labels = shapes(100, 1)
    wrong = {"train": [3, 50, 121, 300], "test": [7, 40]}
    given[wrong["train"]] ^= 1
    test_labels[wrong["test"]] ^= 1
    images = written(train, test, given, test_labels)
    found, accuracy = labels.find(images, "shapes", False, 5)
    planted = {(split, f"{at}") for split, each in wrong.items() for at in each}
    rows = findings.table(found, images)
    hits = {(row.split, row.key) for row in rows.itertuples()}
    assert len(hits & planted) >= 5
    assert len(hits - planted) <= 5
    assert 0.9 < accuracy < 1
    assert (rows["label"] != rows["partner_label"]).all() and rows["partner_key"].isna().all()


def test_images_that_are_all_blank_are_audited() -> None:
    images = written(np.zeros((8, 32, 32, 3), np.uint8), np.zeros((4, 32, 32, 3), np.uint8))
    found, accuracy = labels.find(images, "shapes", False, 5)
    assert 0 <= accuracy <= 1
    assert set(found) == {"image", "kind", "score", "partner", "predicted"}


def test_features_of_other_images_are_an_error() -> None:
    from stages.data import writer

    images = written(shapes(30, 0)[0], shapes(10, 1)[0])
    features = [(split, f"{at}x", np.zeros(4, np.float16), 0) for split in ("train", "test") for at in range(20)]
    writer.write("other", CLASSES, ["train", "test"], features)
    with pytest.raises(UserError, match="data/records/other: other images than those of the audit"):
        labels.find(images, "other", True, 5)
