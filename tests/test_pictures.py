"""Figures that hold what is in the tables."""

import io
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from PIL import Image

from stages import pictures
from tests.conftest import AWKWARD


def confusion(names: list[str], share: float) -> pd.DataFrame:
    """Every class is recognised with the given share, and else taken for the next one."""
    shares = share * np.eye(len(names)) + (1 - share) * np.roll(np.eye(len(names)), 1, axis=1)
    actual, predicted = np.meshgrid(names, names, indexing="ij")
    return pd.DataFrame({"actual": actual.ravel(), "predicted": predicted.ravel(), "share": shares.ravel()})


def texts(document: str) -> list[str]:
    """All texts of an SVG document."""
    root = ElementTree.fromstring(document)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_heatmap_has_the_names_and_the_shares() -> None:
    found = texts(pictures.svg(pictures.confusion(confusion(AWKWARD, 0.7))))
    for name in ["<script>alert(1)</s…", "NA", "1", "$x^$", "a class whose name …", "T-shirt/top"]:
        assert found.count(name) == 2, name
    assert found.count("70") == found.count("30") == len(AWKWARD)
    assert "0" not in found  # an empty cell says nothing


def test_many_classes_have_no_numbers_in_their_cells() -> None:
    found = texts(pictures.svg(pictures.confusion(confusion([f"class {number}" for number in range(30)], 0.7))))
    assert "class 29" in found
    assert "70" not in found


def test_curves_of_a_single_epoch_are_seen() -> None:
    columns = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    history = pd.DataFrame([[1, 0.5, 1.0, 0.4, 1.2]], columns=columns)
    lines = pictures.curves(history).axes[0].lines
    assert [line.get_marker() for line in lines] == ["o", "o"]


def test_an_svg_document_follows_the_readers_colours_and_needs_nothing_else() -> None:
    bins = pd.DataFrame({"low": [0.6], "high": [0.667], "confidence": [0.65], "accuracy": [0.5], "images": [4]})
    document = pictures.svg(pictures.reliability(bins))
    assert "prefers-color-scheme:dark" in document
    style, drawing = document.split("</style>", 1)
    for light, dark in pictures.DARK.items():
        assert light in style and dark in style
        assert light not in drawing
    assert drawing.count("http") == 0
    assert ElementTree.fromstring(document).tag == "{http://www.w3.org/2000/svg}svg"


def test_pictures_are_files_of_the_same_bytes_every_time() -> None:
    table = confusion(["$x^$", "b"], 0.5)
    first, second = (pictures.png(pictures.confusion(table)) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"matplotlib" not in first.lower()
    assert pictures.svg(pictures.confusion(table)) == pictures.svg(pictures.confusion(table))


def test_a_gallery_shows_every_image_pixel_by_pixel() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    images = [(Image.new("RGB", (28, 28), colour), pictures.mistake("cat", "dog", 0.987)) for colour in colours]
    picture = Image.open(io.BytesIO(pictures.png(pictures.gallery(images, columns=2)))).convert("RGB")
    shares = {colour: count / (picture.width * picture.height) for count, colour in picture.getcolors(1 << 24) or []}
    for colour in colours:
        assert 0.13 < shares[colour] < 0.2, shares.get(colour)  # of a canvas for four, with captions
