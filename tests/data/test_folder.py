"""Your own images: layouts, splits by hashes and by groups, and conversions."""

import io
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.config.datasets import FolderConfig, TableConfig
from stages.data import split
from stages.data.folders.converted import convert_all
from stages.data.folders.read import checked_examples, list_images
from stages.data.folders.table import has_paths as has_paths_in
from stages.runtime.errors import UserError
from tests.conftest import run

CLASSES = ["cat", "dog"]
SPLITS = ("train", "validation", "test")


def image(seed: int = 0, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def names(number: int, classes: list[str] = CLASSES) -> dict[str, bytes]:
    """Files of so many images in each class."""
    return {
        f"{name}/{index:03d}.jpg": image(1000 * label + index)
        for label, name in enumerate(classes)
        for index in range(number)
    }


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read(source: Path, **options: Any) -> tuple[dict[tuple[str, str], tuple[Any, int]], dict[str, str], Counter[str]]:
    """The valid examples by split and key, the errors by key, and the conversions."""
    options = {"classes": CLASSES, "test_fraction": 0.2, **options}
    examples, errors, conversions = {}, {}, Counter[str]()
    config = FolderConfig(path=str(source), **options)
    for (split_name, key, data, label), error in checked_examples("pets", config)[1]:
        if error:
            errors[key] = error
        else:
            assert (split_name, key) not in examples
            examples[split_name, key] = data, label
    for content, _ in convert_all(list_images(source, config.table).images()):
        conversions.update(content.applied)
    return examples, errors, conversions


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train", "test"], {"train": "train", "test": "test"}),
        (["Training", "valid"], {"Training": "train", "valid": "test"}),
        (["train", "val", "test"], {"train": "train", "val": "validation", "test": "test"}),
    ],
)
def test_folders_of_splits_are_the_splits(project: Path, folders: list[str], expected: dict[str, str]) -> None:
    files = {f"{folder}/{name}": data for folder in folders for name, data in names(3).items()}
    examples, _, _ = read(write(project / "pets", files), test_fraction=None)
    assert set(examples) == {(expected[folder], name) for folder in folders for name in names(3)}
    with pytest.raises(UserError, match="has splits of its own: remove test_fraction"):
        read(project / "pets")


def test_validation_fraction_holds_out_images_of_the_sources_training_split(project: Path) -> None:
    folders = {"train": names(20), "test": names(3), "val": names(4)}
    root = write(
        project / "pets",
        {f"{split}/{name}": data for split in ("train", "test") for name, data in folders[split].items()},
    )
    examples, _, _ = read(root, test_fraction=None, validation_fraction=0.2)
    held_out = {key for name, key in examples if name == "validation"}
    assert {key for name, key in examples if name == "test"} == set(names(3))
    assert {key for name, key in examples if name == "train"} == set(names(20)) - held_out
    assert 2 <= len(held_out) <= 16
    write(root, {f"val/{name}": data for name, data in folders["val"].items()})
    with pytest.raises(UserError, match="has a validation split of its own: remove validation_fraction"):
        read(root, test_fraction=None, validation_fraction=0.2)


def test_two_classes_of_three_images_have_both_splits(project: Path) -> None:
    for seed in range(20):
        root = write(project / str(seed), {f"{seed}{name}": data for name, data in names(3).items()})
        examples, _, _ = read(root, classes=[f"{seed}cat", f"{seed}dog"])
        found = Counter((name, label) for (name, _), (_, label) in examples.items())
        assert len(found) == 4 and sum(found.values()) == 6, found


def test_hash_split_is_stratified_and_new_images_move_no_other() -> None:
    units = [(f"{name}/{index}.jpg", name) for name in "abcde" for index in range(2000)]
    before = split.held_out(units, 0.2)
    for name in "abcde":
        assert abs(sum(unit.startswith(name) for unit in before) - 400) < 70  # four standard deviations
    more = [*units, *((f"a/new{index}.jpg", "a") for index in range(500))]
    assert split.held_out(more, 0.2) & {unit for unit, _ in units} == before


def test_unit_of_several_classes_leaves_each_of_them_one_to_train_with() -> None:
    """Small classes, as two patients with a rare disease: what one class gets to test may be all that another has."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        units = [(f"patient {rng.integers(10**6)}", name) for name in "abc" for _ in range(rng.integers(1, 3))]
        units += [(unit, "abc"[rng.integers(3)]) for unit, _ in units[::2]]
        chosen = split.held_out(units, 0.5)
        assert {name for unit, name in units if unit not in chosen} == {name for _, name in units}


def test_validation_split_takes_from_the_training_split_alone_and_new_images_move_no_other(project: Path) -> None:
    root = write(project / "pets", dict.fromkeys(names(400), b""))

    def splits(**options: Any) -> dict[str, str]:
        config = FolderConfig(path=str(root), classes=CLASSES, test_fraction=0.2, **options)
        return {key: name for (name, key, *_), _ in checked_examples("pets", config)[1]}

    two, three = splits(), splits(validation_fraction=0.1)
    assert all(three[key] == name or (name, three[key]) == ("train", "validation") for key, name in two.items())
    counts = Counter((name, key[:3]) for key, name in three.items())
    assert all(20 <= counts["validation", name] <= 60 for name in CLASSES)  # three standard deviations
    write(root, dict.fromkeys((f"cat/new{index}.jpg" for index in range(100)), b""))
    assert splits(validation_fraction=0.1).items() > three.items()


def test_classes_that_are_too_small_for_three_splits_are_one_line(project: Path) -> None:
    for number in (1, 2):
        root = write(project / str(number), names(number))
        with pytest.raises(UserError, match="no class has enough images or groups to train, validate and test"):
            read(root, validation_fraction=0.1)
    for seed in range(20):
        root = write(project / f"s{seed}", {f"{seed}{name}": data for name, data in names(4).items()})
        examples, _, _ = read(root, classes=[f"{seed}cat", f"{seed}dog"], test_fraction=0.01, validation_fraction=0.01)
        found = Counter((name, label) for (name, _), (_, label) in examples.items())
        assert found == {(name, label): 2 if name == "train" else 1 for name in SPLITS for label in (0, 1)}


@pytest.mark.parametrize("validation_fraction", [None, 0.2])
def test_group_never_spans_two_splits(project: Path, validation_fraction: float | None) -> None:
    files = {f"{name}/p{patient}_{index}.jpg": b"" for name in CLASSES for patient in range(30) for index in range(4)}
    root = write(project / "pets", files)
    options: Any = {"test_fraction": 0.2, "validation_fraction": validation_fraction, "group": r"^(p\d+)_"}
    config = FolderConfig(path=str(root), classes=CLASSES, **options)
    examples = [example for example, _ in checked_examples("pets", config)[1]]
    splits: dict[str, set[str]] = {}
    for split_name, key, _, _ in examples:
        splits.setdefault(key.split("/")[1].split("_")[0], set()).add(split_name)
    assert len(splits) == 30 and all(len(found) == 1 for found in splits.values())
    for name in SPLITS if validation_fraction else ("train", "test"):
        assert 2 <= sum(found == {name} for found in splits.values()) <= 28


def test_images_are_converted_to_what_a_person_sees_and_jpeg_files_stay(project: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    files = names(5) | {
        "cat/turned.jpg": image(50, exif=exif),
        "cat/cmyk.jpg": image(51, mode="CMYK"),
        "dog/palette.gif": image(52, "GIF"),
        "dog/clear.png": image(53, "PNG", "LA"),
        "dog/plain.bmp": image(54, "BMP"),
        "dog/plain.TIF": image(56, "TIFF", compression="tiff_lzw"),
        "dog/plain.avif": image(57, "AVIF", mode="L", quality=100),
        "dog/lossless.webp": image(55, "WEBP", lossless=True),
    }
    examples, errors, conversions = read(write(project / "pets", files))
    stored = {key: data for (_, key), (data, _) in examples.items()}
    assert errors == {}
    assert conversions == {"EXIF orientation": 1, "palette": 1}
    assert {key for key, data in stored.items() if data == files[key]} == {*names(5), "cat/cmyk.jpg"}
    assert np.array_equal(pixels(stored["cat/turned.jpg"]), pixels(files["cat/turned.jpg"])[::-1, ::-1])
    for key in ("dog/plain.bmp", "dog/lossless.webp", "dog/plain.TIF", "dog/plain.avif"):
        assert stored[key].startswith(b"\x89PNG") and np.array_equal(pixels(stored[key]), pixels(files[key]))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_tiny_gray_images_of_one_size_have_one_channel(project: Path, mode: str, channels: int) -> None:
    files = {name: image(index, "PNG", "L") for index, name in enumerate(names(5))}
    examples, _, _ = read(write(project / "pets", files | {"cat/other.png": image(9, "PNG", mode)}))
    for (_, key), (data, _) in examples.items():
        if channels == 1:
            assert data.shape == (12, 20, 1) and np.array_equal(
                data[..., 0], pixels((project / "pets" / key).read_bytes())
            )
        else:
            assert isinstance(data, bytes)


def test_invalid_images_are_named(project: Path) -> None:
    files = {
        "cat/empty.jpg": b"",
        "cat/text.png": b"text",
        "dog/cut.jpg": image(3)[:300],
        "dog/cut.webp": image(3, "WEBP")[:90],
    }
    _, errors, _ = read(write(project / "pets", names(3) | files))
    assert errors == {
        "cat/empty.jpg": "is empty",
        "cat/text.png": "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF",
        "dog/cut.jpg": "is truncated",
        "dog/cut.webp": "is truncated",
    }


def test_unknown_class_is_named(project: Path) -> None:
    write(project / "pets", names(3, [*CLASSES, "emu"]))
    with pytest.raises(UserError, match=r"'emu/000.jpg': 'emu' is not in folders.pets.classes in params.yaml; add it"):
        read(project / "pets")


def test_links_inside_the_folder_are_files(project: Path) -> None:
    root = write(project / "pets", names(3))
    (root / "cat/link.jpg").symlink_to("../dog/001.jpg")
    assert {key for _, key in read(root)[0]} == {*names(3), "cat/link.jpg"}


def write_parquet(path: Path, columns: dict[str, list[Any]], metadata: dict[bytes, bytes] | None = None) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("kind", ["csv", "parquet", "categories"])
def test_table_of_paths_with_splits(project: Path, kind: str) -> None:
    files = names(3)
    root = write(project / "pets", {f"all/{name}": data for name, data in files.items()})
    rows = [
        (f"all/{name}", name.split("/")[0], ("train", "dev", "test")[index % 3]) for index, name in enumerate(files)
    ]
    if kind == "csv":
        (root / "t.csv").write_text(
            "\ufefffile;species;set\n" + "".join(";".join(row) + "\n" for row in rows), encoding="utf-8"
        )
    else:
        table = pd.DataFrame(rows, columns=["file", "species", "set"])
        (table.astype("category") if kind == "categories" else table).to_parquet(root / "t.parquet")
    columns = TableConfig(file="t.csv" if kind == "csv" else "t.parquet", image="file", label="species", split="set")
    examples, errors, _ = read(root, table=columns, test_fraction=None)
    assert errors == {}
    expected = {
        ("validation" if name == "dev" else name, path): (
            files[path.removeprefix("all/")],
            CLASSES.index(label),
        )
        for path, label, name in rows
    }
    assert examples == expected


def test_table_and_files_may_have_decomposed_names_as_on_a_mac(project: Path) -> None:
    names = [f"{name}/{index}.jpg" for name in ("é", "한글") for index in range(3)]
    files = {unicodedata.normalize("NFD", name): image(index) for index, name in enumerate(names)}
    root = write(project / "pets", files)
    (root / "t.csv").write_text(
        "file,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in files), encoding="utf-8"
    )
    examples, errors, _ = read(
        root, classes=["é", "한글"], table=TableConfig(file="t.csv", image="file", label="label")
    )
    assert errors == {}
    assert {name for _, name in examples} == {unicodedata.normalize("NFC", name) for name in names}


def test_table_with_images_and_numbered_labels_as_in_hugging_face_datasets(project: Path) -> None:
    import json

    files = list(names(8).values())
    features = {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
    write_parquet(
        project / "pets.parquet",
        {
            "image": [{"bytes": data, "path": None} for data in files],
            "label": [1] * 8 + [0] * 8,
            "patient": [f"p{index // 2}" for index in range(16)],
        },
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    columns = TableConfig(image="image", label="label", group="patient")
    examples, _, _ = read(project / "pets.parquet", table=columns)
    assert dict(examples.values()) == {data: int(at >= 8) for at, data in enumerate(files)}
    splits = {data: name for (name, _), (data, _) in examples.items()}
    assert all(splits[files[row]] == splits[files[row + 1]] for row in range(0, 16, 2))


def test_images_in_a_table_keep_their_keys_and_splits_if_rows_are_added(project: Path) -> None:
    rows = [(data, name[:3]) for name, data in names(40).items()]

    def stored(rows: list[tuple[bytes, str]]) -> dict[tuple[str, str], tuple[Any, int]]:
        images, labels = zip(*rows, strict=True)
        write_parquet(project / "pets.parquet", {"image": list(images), "label": list(labels)})
        return read(project / "pets.parquet", table=TableConfig(image="image", label="label"))[0]

    before = stored(rows)
    after = stored([(image(77), "cat"), *reversed(rows), rows[0]])  # one of them twice
    assert len(after) == 82 and after.items() > before.items()


PATH_TYPES = ["string", "large_string", "string_view", "dictionary", "struct of paths"]


@pytest.mark.parametrize("kind", [*PATH_TYPES, "binary", "large_binary", "binary_view", "struct"])
def test_column_of_images_may_have_any_type_that_writers_use(project: Path, kind: str) -> None:
    import pyarrow

    files = names(8)
    root = write(project / "pets", files)
    column: Any = list(files) if kind in PATH_TYPES else list(files.values())
    if kind == "dictionary":
        column = pyarrow.array(column).dictionary_encode()
    elif kind.startswith("struct"):
        column = [
            {"bytes": None, "path": x} if kind == "struct of paths" else {"bytes": x, "path": None} for x in column
        ]
    else:
        column = pyarrow.array(column, getattr(pyarrow, kind)())
    write_parquet(root / "t.parquet", {" image ": column, "label": [name[:3] for name in files]})
    has_paths = has_paths_in(root / "t.parquet", "image")
    assert has_paths == (kind in PATH_TYPES)
    table = TableConfig(file="t.parquet" if has_paths else None, image="image", label="label")
    examples, errors, _ = read(root if has_paths else root / "t.parquet", table=table)
    assert errors == {} and sorted(data for data, _ in examples.values()) == sorted(files.values())


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("training_set", "validation_set", "test_set"),
        ("Training", "dev", "Testing"),
        ("TRAIN", "valid", "TEST"),
        ("train-images", "eval", "test-images"),
        ("TrainSet", "valset", "testset"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("flowers train", "flowers dev", "flowers test"),
    ],
)
def test_folders_of_splits_have_usual_names(project: Path, train: str, validation: str, test: str) -> None:
    folders = {"train": train, "validation": validation, "test": test}
    write(
        project / "x/pets", {f"{folder}/{key}": data for folder in folders.values() for key, data in names(3).items()}
    )
    examples, _, _ = read(project / "x", test_fraction=None)
    assert set(examples) == {(split_name, key) for split_name in folders for key in names(3)}


def test_names_of_classes_may_contain_a_word_for_splits(project: Path) -> None:
    classes = ["beaker", "test tube", "Set", "dev_board"]
    write(project / "lab", names(5, classes))
    assert {key.partition("/")[0] for _, key in read(project / "lab", classes=classes)[0]} == set(classes)


def test_header_with_spaces_and_rows_that_end_in_delimiters_are_read(project: Path) -> None:
    root = write(project / "pets", names(8))
    rows = "".join(f"{name}, {name[:3]} ,,\n" for name in names(8))
    (root / "t.csv").write_text(f"path, label\n{rows}\n", encoding="utf-8")
    examples, _, _ = read(root, table=TableConfig(file="t.csv", image="path", label="label"))
    assert {key for _, key in examples} == set(names(8))


@pytest.mark.parametrize("cache", [None, "../cache"])
def test_links_into_the_cache_of_dvc_are_files(project: Path, cache: str | None) -> None:
    def dvc(*arguments: str) -> None:
        done = run(project, "dvc", *arguments)
        assert done.returncode == 0, done.stderr

    dvc("init", "-q", "--no-scm")
    dvc("config", "cache.type", "symlink")
    if cache:
        dvc("cache", "dir", cache)
    root = write(project / "photos", names(4))
    dvc("add", "-q", "photos")
    assert (root / "cat/000.jpg").is_symlink()
    assert len(read(Path("photos"))[0]) == 8
    (root / "cat/000.jpg").unlink()
    (root / "cat/000.jpg").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="link out of the folder"):
        read(Path("photos"))
