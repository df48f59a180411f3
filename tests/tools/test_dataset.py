"""`make dataset`: what it adds to params.yaml, what it chooses, and one clear line for every hostile source."""

import difflib
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.config import params
from stages.runtime.errors import UserError
from tests.conftest import ROOT, SAMPLE
from tests.data.photos import write_photos
from tests.data.test_folder import image, names, write, write_parquet
from tools.data import audit_data
from tools.data.dataset import dataset
from tools.lib import recipe

NO_COLUMNS = dict.fromkeys(("image", "label", "split", "group"))


@pytest.fixture(autouse=True)
def published_params(project: Path) -> None:
    """The params.yaml of the repository, byte by byte, instead of a smaller one."""
    (project / "params.yaml").write_bytes((SAMPLE / "params.yaml").read_bytes())


def make(name: str, source: Path | str, group: str | None = None, skip_invalid: bool = False, **columns: str) -> None:
    dataset(name, str(source), group, None, {**NO_COLUMNS, **columns}, skip_invalid)


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def test_photos_become_a_dataset_and_params_gain_lines_only(
    project: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos = tmp_path_factory.mktemp("photos") / "flowers"
    write_photos(photos, 30)
    before, files = Path("params.yaml").read_text(encoding="utf-8"), contents(photos)
    with pytest.raises(UserError, match=r"1 of 90 images are invalid; repair .*: run it again with SKIP_INVALID=1"):
        make("flowers", os.path.relpath(photos))
    assert Path("params.yaml").read_text(encoding="utf-8") == before
    make("flowers", os.path.relpath(photos), skip_invalid=True)
    text = Path("params.yaml").read_text(encoding="utf-8")
    changes = [line for line in difflib.ndiff(before.splitlines(), text.splitlines()) if line[0] in "-+"]
    assert changes and all(line.startswith("+") for line in changes)
    assert contents(photos) == files
    values = params.load()
    assert values.datasets["flowers"].classes == ["daisy", "rose", "tulip"]
    assert values.folders["flowers"].path == os.path.relpath(photos)
    assert values.folders["flowers"].skip_invalid_images
    assert values.features["flowers_mobilenetv2"].dataset == "flowers"
    assert values.models["flowers_mobilenetv2"].architecture == "dense"
    said = capsys.readouterr().out
    assert "flowers: 89 images of 3 classes" in said
    assert "to be converted: 6 EXIF orientation" in said
    assert "problem: 'tulip/tulip_004.jpg' is truncated" in said
    assert said.count("the same file in two classes: 'daisy/daisy_00") == 4
    assert said.endswith("next: make repro TARGETS=evaluate@flowers_mobilenetv2\n")
    make("flowers2", os.path.relpath(photos), skip_invalid=True)  # a second entry in the same section
    assert list(params.load().folders) == ["flowers", "flowers2"]
    with pytest.raises(UserError, match="there is already a 'flowers'"):
        make("flowers", photos)


def test_command_line_names_columns_and_groups(project: Path) -> None:
    root = write(project / "pets", {f"all/{name}": data for name, data in names(10).items()})
    rows = "".join(f"all/{name},{name[:3]}\n" for name in names(10))
    (root / "list.csv").write_text(f"where,what\n{rows}", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "tools.data.dataset",
        "pets",
        "pets/list.csv",
        "--image",
        "where",
        "--label",
        "what",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--group", r"/(\d+)"], cwd=project, env=environment, capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
    folder = params.load().folders["pets"]
    assert (folder.path, folder.group, folder.test_fraction) == ("pets", r"/(\d+)", 0.2)
    assert folder.table and folder.table.model_dump(exclude_none=True) == {
        "file": "list.csv",
        "image": "where",
        "label": "what",
    }
    assert subprocess.run(command[:3], cwd=project, env=environment, capture_output=True).returncode == 2


def test_groups_get_a_validation_split_of_their_own(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        f"{name}/p{at // 2:02d}_{at % 2}.jpg": data
        for name in ("cat", "dog")
        for at, data in enumerate(names(30).values())
    }
    make("scans", write(project / "scans", files), group=r"^(p\d+)_")
    said = capsys.readouterr().out
    entry = params.load().folders["scans"]
    assert (entry.test_fraction, entry.validation_fraction) == (0.2, 0.1)
    assert re.search(r"  cat: 60, \d+ of them to test, \d+ to validate\n", said)
    comment = re.search(r"((?:  # .*\n)+)  scans:\n", Path("params.yaml").read_text(encoding="utf-8"))
    assert comment and "validation_fraction" in comment[1]
    make("pets", write(project / "pets", names(10) | {"cat/a.\x1b[2j": b""}))
    assert params.load().folders["pets"].validation_fraction is None
    said = capsys.readouterr().out
    assert "to validate" not in said and r": 1 .\x1b[2j" in said
    split = {f"{split}/{name}": data for split in ("train", "val", "test") for name, data in names(2).items()}
    make("split", write(project / "split", split), group=r"^(\d)")
    assert params.load().folders["split"].validation_fraction is None
    said = capsys.readouterr().out
    assert "  cat: 6, 2 of them to test, 2 to validate\n" in said
    assert "the same file to train, to validate and to test: " in said
    assert "  warning: the source's own splits part groups: 1, such as '0'; accuracies will be too high" in said


def test_entry_has_the_indentation_of_its_section(project: Path) -> None:
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=4, sequence=6, offset=4)
    yaml.dump(yaml.load(Path("params.yaml")), Path("params.yaml"))
    before = Path("params.yaml").read_text(encoding="utf-8")
    known = list(params.load().models)
    make("pets", write(project / "pets", names(4)))
    make("others", write(project / "others", names(4)))
    assert set(params.load().models) == {*known, "pets_cnn", "others_cnn"}
    changes = difflib.ndiff(before.splitlines(), Path("params.yaml").read_text(encoding="utf-8").splitlines())
    assert not [line for line in changes if line.startswith("-")]


def test_line_breaks_of_windows_stay(project: Path) -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text(encoding="utf-8"), newline="\r\n", encoding="utf-8")
    make("pets", write(project / "pets", names(4)))
    audit_data.add("pets")
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")


def test_files_that_systems_add_are_no_images_and_no_classes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thumbnails = {f"cat/@eaDir/{index:03d}.jpg/SYNOPHOTO_THUMB_M.jpg": image(index) for index in range(4)}
    added = ["__MACOSX/cat/._000.jpg", "cat/._001.jpg", "#recycle/x/a.jpg", "$RECYCLE.BIN/S-1/a.jpg", "cat/Thumbs.db"]
    added += ["System Volume Information/a.jpg", ".ipynb_checkpoints/a.jpg", "dog/.DS_Store", "dog/desktop.ini"]
    files = names(4) | thumbnails | dict.fromkeys(added, b"x")
    source = write(project / "pets", files)
    make("pets", source)
    assert params.load().datasets["pets"].classes == ["cat", "dog"]
    said = capsys.readouterr().out
    assert "pets: 8 images" in said and "problem" not in said


@pytest.mark.parametrize("fraction", ["0", "1", "-0.1", "nan"])
def test_test_fraction_that_leaves_a_split_empty_is_one_line(project: Path, fraction: str) -> None:
    source = write(project / "pets", names(2))
    with pytest.raises(UserError, match=r"^folders.pets.test_fraction: "):
        dataset("pets", str(source), None, float(fraction), NO_COLUMNS)


FACTS = recipe.Facts(160, 1.3, None, 3, 100, 100)


@pytest.mark.parametrize(
    ("facts", "architecture", "features", "image_size", "class_weight"),
    [
        (FACTS, "dense", True, None, None),
        (FACTS._replace(largest_class=201), "dense", True, None, "balanced"),
        (FACTS._replace(short_side=32), "cnn", False, 32, None),
        (FACTS._replace(short_side=32, size=(32, 32)), "cnn", False, 32, None),  # records of color images have no size
        (FACTS._replace(short_side=28, size=(28, 28), channels=1), "cnn", False, None, None),
    ],
)
def test_recipe_depends_on_size_and_balance(
    facts: recipe.Facts, architecture: str, features: bool, image_size: int | None, class_weight: str | None
) -> None:
    chosen = recipe.choose("pets", facts)
    assert chosen.model["architecture"] == architecture
    assert (chosen.features is not None) == features
    assert chosen.model.get("image_size") == image_size
    assert chosen.model.get("class_weight") == class_weight
    assert chosen.reason


def test_a_thousand_classes_of_one_image(project: Path) -> None:
    data = image(1, "PNG", "L")
    files = {f"{split}/class {index:04d}/a.png": data for split in ("train", "test") for index in range(1000)}
    started = time.process_time()
    make("many", write(project / "many", files))
    assert len(params.load().datasets["many"].classes) == 1000
    assert time.process_time() - started < 60


def link(root: Path, name: str, target: str) -> None:
    (root / name).symlink_to(target)


def csv(text: str) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        write(root.parent, {"pictures/a.jpg": image(), "pictures/b.jpg": image(1)})
        root.write_text("path,label,split\n" + text, encoding="utf-8")

    return prepare


def folder(files: dict[str, bytes], *more: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        write(root, files)
        for change in more:
            change(root)

    return prepare


PETS = names(2)
HOSTILE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "link out of the folder": (
        "pets",
        folder(PETS, lambda r: link(r, "cat/z.jpg", "/etc/passwd")),
        "link out of the folder",
    ),
    "folder that is a link out": ("pets", folder(PETS, lambda r: link(r, "emu", "/etc")), "link out of the folder"),
    "link to nothing": ("pets", folder(PETS, lambda r: link(r, "cat/z.jpg", "gone")), "link to nothing"),
    "endless link": ("pets", folder(PETS, lambda r: link(r, "cat/z", "..")), "link to a folder"),
    "link to itself": ("pets", folder(PETS, lambda r: link(r, "cat/z.jpg", "z.jpg")), "link to nothing"),
    "an archive": ("a.zip", lambda r: r.write_bytes(b"PK"), "unpack it, and give the folder"),
    "another kind of file": ("a.rar", lambda r: r.write_text("text", encoding="utf-8"), "it is no folder and no table"),
    "no source": ("", lambda r: None, "no source is given; name one, as in FROM=../flowers"),
    "nothing": ("pets", lambda r: None, "no such folder"),
    "empty folder": ("pets", lambda r: r.mkdir(), "no images in folders of classes"),
    "images without folders": ("pets", folder({"a.jpg": image()}), "no images in folders of classes"),
    "one class": ("pets", folder(names(3, ["cat"])), "its only class is 'cat'"),
    "empty class folder": (
        "pets",
        folder(PETS, lambda r: (r / "emu").mkdir()),
        "emu: this folder of a class has no images",
    ),
    "class names that differ in case": (
        "pets",
        folder(PETS | {"Cat/a.jpg": image()}),
        "'Cat' and 'cat' differ only in their case",
    ),
    "names that are the same in Unicode": (
        "pets",
        folder(PETS | {f"cat/{unicodedata.normalize(form, 'é')}.jpg": image() for form in ("NFC", "NFD")}),
        "two files are named 'cat/é.jpg'",
    ),
    "name that is not UTF-8, as of a file in an old zip file": (
        "pets",
        folder(PETS, lambda r: (Path(os.fsdecode(bytes(r) + "/cat/猫.jpg".encode("cp932")))).touch()),
        r"'cat/\udc94L.jpg' is no name in UTF-8; rename it, or unpack its archive with the encoding of the names, such "
        "as `unzip -O cp932 pets.zip`",
    ),
    "class name of several lines": (
        "pets",
        folder(PETS | {"a\nb/a.jpg": image()}),
        "class names should be distinct and printable",
    ),
    "class that is a formula": (
        "pets",
        folder(PETS | {"=1+1/a.jpg": image(), "=1+1/b.jpg": image(1)}),
        "pets: the class '=1+1' starts like a formula of a spreadsheet; rename its folder or label",
    ),
    "splits beside classes": (
        "pets",
        folder(PETS | {"train/cat/a.jpg": image()}),
        "folders of splits, such as 'train'",
    ),
    "no test split": (
        "pets",
        folder({f"train/{n}": d for n, d in PETS.items()}),
        "it has only images for train",
    ),
    "one image of each class": ("pets", folder(names(1)), "no valid images to test with"),
    "no valid image": ("pets", folder(dict.fromkeys(PETS, b"x")), "none of its 4 images is valid"),
    "empty table": ("list/a.csv", lambda r: r.write_text("", encoding="utf-8"), "which column has the images"),
    "table of bytes": ("list/a.csv", lambda r: r.write_bytes(b"path,label\n\xff\x00,\xfe\n"), "not a valid table"),
    "table with an absolute path": (
        "list/a.csv",
        csv("/etc/passwd,a,train\n"),
        "no relative path below the table's folder",
    ),
    "table with ..": ("list/a.csv", csv("../x.jpg,a,train\n"), "no relative path below the table's folder"),
    "table with absolute paths below its folder": (
        "list/a.csv",
        lambda r: r.write_text(f"path,label\n{r.absolute().parent}/pictures/a.jpg,a\n", encoding="utf-8"),
        "folder; write it as 'pictures/a.jpg', relative to that folder",
    ),
    "table without a file": ("list/a.csv", csv("x.jpg,a,train\npictures/a.jpg,b,test"), "there is no file 'x.jpg'"),
    "table with a path twice": (
        "list/a.csv",
        csv("pictures/a.jpg,a,train\n" * 2),
        "row 2: 'pictures/a.jpg' is listed twice",
    ),
    "table without a label": ("list/a.csv", csv("pictures/a.jpg,,train\n"), "row 1: it has no 'label'"),
    "table with another split": ("list/a.csv", csv("pictures/a.jpg,a,fold1\n"), "use train, validation or test"),
    "labels that differ in case": (
        "list/a.csv",
        csv("pictures/a.jpg,a,train\npictures/b.jpg,A,test\n"),
        "a.csv: the classes 'A' and 'a' differ only in their case; rename one",
    ),
    "label that is a formula": ("list/a.csv", csv('pictures/a.jpg,"=cmd|x",train\npictures/b.jpg,b,test\n'), "formula"),
    "table beside params.yaml": (
        "a.csv",
        csv("pictures/a.jpg,a,train\npictures/b.jpg,b,test\n"),
        "a.csv: its folder contains this repository; move it and the images to a folder of their own",
    ),
    "corrupt Parquet": ("a.parquet", lambda r: r.write_text("PAR1", encoding="utf-8"), "not a valid table"),
    "Parquet without images": (
        "a.parquet",
        lambda r: write_parquet(r, {"label": ["a"]}),
        "which column has the images",
    ),
}


def parquet(**columns: list[Any]) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        number = len(next(iter(columns.values())))
        write_parquet(root, {"image": [image(index) for index in range(number)], **columns})

    return prepare


def labels(*values: str, header: str = "path,label") -> Callable[[Path], None]:
    """A CSV table of a row for each label."""

    def prepare(root: Path) -> None:
        write(root.parent, {f"{index}.jpg": image(index) for index in range(len(values))})
        root.write_text(
            f"{header}\n" + "".join(f"{index}.jpg,{value}\n" for index, value in enumerate(values)), encoding="utf-8"
        )

    return prepare


ONE_CLASS = "but every image has one class here"
MISSING = "or one that stands for a missing value, such as -1 or None"
OTHERS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "labels in a text": (
        "list/a.csv",
        labels("beach|sunset", "sea", "beach"),
        f"'beach|sunset' seems to be several, {ONE_CLASS}",
    ),
    "labels with a semicolon": (
        "list/a.csv",
        labels("beach; sunset", "sea"),
        f"'beach; sunset' seems to be several, {ONE_CLASS}",
    ),
    "labels with a comma": (
        "list/a.csv",
        labels('"cat,dog"', "cat", "dog"),
        f"'cat,dog' seems to be several, {ONE_CLASS}",
    ),
    "labels in JSON": (
        "list/a.csv",
        labels('"[""cat"", ""dog""]"', "cat"),
        'row 1: its label is the list ["cat", "dog"]',
    ),
    "lists of labels": ("a.parquet", parquet(label=[[0, 1], [1]]), f"row 1: its label is the list [0, 1], {ONE_CLASS}"),
    "columns of labels": (
        "list/a.csv",
        labels("cat,dog", "cat,", header="path,label_1,label_2"),
        "which column has the labels? Name one of path, label_1, label_2: ",
    ),
    "a label and another": (
        "list/a.csv",
        labels("cat,dog", header="path,label,label2"),
        f"columns such as 'label2' seem to be several labels of an image, {ONE_CLASS}",
    ),
    "columns of 0 and 1": (
        "list/a.csv",
        labels("1,0,0.0", "0,1,0.0", header="path,healthy,rust,scab"),
        "which column has the labels? Name one of path, healthy, rust, scab: ",
    ),
    "an image with two labels in two rows": (
        "list/a.csv",
        csv("pictures/a.jpg,a,train\npictures/a.jpg,b,train\n"),
        f"row 2: 'pictures/a.jpg' is listed twice, with the labels 'a' and 'b', {ONE_CLASS}",
    ),
    "label -1": ("a.parquet", parquet(label=[0, 1, -1, -1]), f"row 3: it has no 'label', {MISSING} (2 rows)"),
    "label -1 in CSV": ("list/a.csv", labels("0", "1", "-1"), f"row 3: it has no 'label', {MISSING}"),
    "label NaN": ("a.parquet", parquet(label=[0.0, float("nan")]), f"row 2: it has no 'label', {MISSING}"),
    "label null": ("a.parquet", parquet(label=["cat", None]), f"row 2: it has no 'label', {MISSING}"),
    **{
        f"label {text!r}": ("list/a.csv", labels("cat", "dog", text), f"row 3: it has no 'label', {MISSING}")
        for text in ("None", "nan", "", "  ", "NULL", "N/A")
    },
    "number of no class": (
        "a.parquet",
        lambda r: write_parquet(
            r,
            {"image": [image(), image(1)], "label": [0, 7]},
            {b"huggingface": b'{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'},
        ),
        "row 2: label 7 is none of its 2 classes",
    ),
    "row with too many values": (
        "list/a.csv",
        csv("pictures/a.jpg,Labrador, black,train\n"),
        "row 1: it has 4 values for 3 columns; put quotes around a value",
    ),
    "column twice": (
        "list/a.csv",
        labels("a,b", header="path,label,label"),
        "several columns are named 'label'; rename the others",
    ),
    "row without an image": (
        "a.parquet",
        lambda r: write_parquet(r, {"image": [image(), None], "label": ["a", "b"]}),
        "row 2: it has no image in 'image'",
    ),
    "row with neither bytes nor path": (
        "a.parquet",
        lambda r: write_parquet(
            r, {"image": [{"bytes": image(), "path": "a"}, {"bytes": None, "path": None}], "label": ["a", "b"]}
        ),
        "row 2: it has no image in 'image'",
    ),
    "row with a path among images": (
        "a.parquet",
        lambda r: write_parquet(
            r, {"image": [{"bytes": image(), "path": "a"}, {"bytes": None, "path": "b.jpg"}], "label": ["a", "b"]}
        ),
        "row 2: it has the path 'b.jpg' instead of an image",
    ),
    "pixels in a table": (
        "a.parquet",
        lambda r: write_parquet(r, {"image": [[0, 1], [2]], "label": ["a", "b"]}),
        "row 1: it has no image file, but numbers",
    ),
    "path without a name": ("list/a.csv", csv(",a,train\n"), "row 1: it has no image in 'path'"),
    "table in the encoding of Windows": (
        "list/a.csv",
        lambda r: r.write_bytes("path,label\né.jpg,a\n".encode("cp1252")),
        "it is not UTF-8; save it as UTF-8",
    ),
    "table in UTF-16": (
        "list/a.csv",
        lambda r: r.write_text("path,label\na.jpg,a\n", encoding="utf-16"),
        "it is not UTF-8; save it as UTF-8",
    ),
    "table in UTF-16 without a mark": (
        "list/a.csv",
        lambda r: r.write_text("path,label\na.jpg,a\n", encoding="utf-16-le"),
        "it is not UTF-8",
    ),
    "table of URLs": (
        "list/a.csv",
        csv("https://example.com/a.jpg,a,train\n"),
        "row 1: 'https://example.com/a.jpg' is a URL; download the images",
    ),
    "table with a path of Windows": (
        "list/a.csv",
        csv("C:\\photos\\a.jpg,a,train\n"),
        "'C:/photos/a.jpg' is no relative path below the table's folder; write it relative to that folder, such as",
    ),
    "folders of splits that are not known": (
        "pets",
        folder({f"{split}/{name}": data for split in ("first", "second") for name, data in PETS.items()}),
        "the folders 'first' and 'second' all contain 'cat' and 'dog': if they are splits, name them train",
    ),
    "splits in classes": (
        "pets",
        folder({f"{name}/{split}/a.jpg": image() for split in ("Train", "Test") for name in ("cat", "dog")}),
        "the folders 'cat' and 'dog' contain splits, such as 'Test'; arrange them as train/CLASS",
    ),
    "splits in the names of classes": (
        "pets",
        folder({f"{name}_{split}/a.jpg": image() for split in ("train", "test") for name in ("cat", "dog")}),
        "folders such as 'cat_test' and 'cat_train' seem to be splits of a class; arrange them as train/CLASS",
    ),
    "splits of a name beside others": (
        "pets",
        folder({f"seg_{split}/{name}": d for split in ("train", "test", "pred") for name, d in PETS.items()}),
        "folders of splits, such as 'seg_test', lie beside others, such as 'seg_pred'; move one kind elsewhere",
    ),
    "flat folder with a table": (
        "pets",
        folder({"a.jpg": image(), "b.jpg": image(1), "labels.csv": b"path,label\na.jpg,a\nb.jpg,b\n"}),
        "2 images are in no folder of a class; if 'labels.csv' lists them, give that: FROM=pets/labels.csv",
    ),
    "column twice in another case": (
        "list/a.csv",
        labels("a,b", header="path,label,Label"),
        "several columns are named 'label'",
    ),
    "two folders of one split": (
        "pets",
        folder({f"{split}/{name}": data for split in ("train", "val", "valid", "test") for name, data in PETS.items()}),
        "the folders 'val' and 'valid' are both for validation; make them one",
    ),
    "train alone": (
        "pets",
        folder({f"train/{n}": d for n, d in PETS.items()}),
        "it has only images for train; add others, or give that folder alone, which is then split: FROM=pets/train",
    ),
    "train beside a flat test": (
        "pets",
        folder({f"train/{n}": d for n, d in PETS.items()} | {f"test/{index}.jpg": image(index) for index in range(3)}),
        "it has only images for train; 3 images are in no folder of a class; add others, or give that folder alone",
    ),
    "pictures of other formats": (
        "pets",
        folder({f"{name}/IMG_{index}.CR2": b"x" for name in ("cat", "dog") for index in range(600)}),
        "such as CLASS/a.jpg or train/CLASS/a.jpg; 1,200 .cr2: convert to JPEG or PNG",
    ),
    "a class of another format": (
        "pets",
        folder(PETS | {"emu/a.psd": b"x", "emu/b.psd": b"x"}),
        "pets/emu: this folder of a class has no images that can be read: 2 .psd: convert",
    ),
}


@pytest.mark.parametrize("kind", [*HOSTILE, *OTHERS])
def test_hostile_source_is_one_clear_line_and_changes_nothing(project: Path, kind: str) -> None:
    source, prepare, message = (HOSTILE | OTHERS)[kind]
    (project / source).parent.mkdir(exist_ok=True)
    prepare(project / source)
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        make("pets", source)
    assert str(caught.value).isprintable(), caught.value
    assert Path("params.yaml").read_bytes() == before


def test_names_in_any_script_are_names(project: Path) -> None:
    classes = ["猫", "собака", "πτηνό", "ñandú $(touch x)", "a'b\"c", "no", "-1", "+1", "می\u200cخواهم", "👩\u200d🔬"]
    make("pets", write(project / "pets", names(4, classes)))
    assert sorted(params.load().datasets["pets"].class_names) == sorted(classes)


def test_many_empty_files_are_one_line_in_bounded_time(project: Path) -> None:
    for name in ("cat", "dog"):
        (project / "pets" / name).mkdir(parents=True)
        for index in range(5_000):
            os.close(os.open(project / f"pets/{name}/{index}.jpg", os.O_CREAT))
    started = time.process_time()
    with pytest.raises(UserError, match=r"none of its 10,000 images is valid; 'cat/0.jpg' is empty"):
        make("pets", "pets")
    assert time.process_time() - started < 30


def test_groups_are_counted_and_a_pattern_that_finds_none_is_an_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"{name}/p{at % 10}_{at}.jpg": image(at) for name in ("cat", "dog") for at in range(40)}
    source = write(project / "pets", files | {"cat/other.jpg": image(99)})
    make("pets", source, group=r"^(p\d)_")
    assert "\n  groups: 10; images in none: 1, such as 'cat/other.jpg'\n" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the pattern '\^\(P.*' is in no image's name, such as '(p|other)"):
        make("scans", source, group=r"^(P\d)_")
    assert "scans" not in params.load().folders


def test_invalid_pattern_is_named(project: Path) -> None:
    with pytest.raises(UserError, match=r"^folders.pets.group: '\(': it should be a regular expression"):
        make("pets", write(project / "pets", PETS), group="(")
