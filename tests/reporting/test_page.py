"""The page as a browser reads it: it needs no other file, and says what the metrics say."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stages.plots._style import percent
from stages.reporting import explain, page
from tests.conftest import run
from tests.reporting.project import AWKWARD, MODELS


class Reader(HTMLParser):
    """Elements with their attributes, and the texts between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def read(reported: Path) -> Reader:
    return Reader(reported / "reports/index.html")


def test_the_page_loads_nothing_from_elsewhere(reported: Path, read: Reader) -> None:
    for tag, attributes in read.elements:
        assert attributes.get("src", "data:").startswith("data:"), tag
        assert "srcset" not in attributes
    assert read.all("link") == read.all("iframe") == []
    links = {anchor["href"] for anchor in read.all("a") if not anchor["href"].startswith("#")}
    assert links == {"https://example.com/?a=1&b=2"}  # the source of a published result
    text = (reported / "reports/index.html").read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#|%23)|@import", text) == []  # except parts of the same figure
    assert len(text) < 2_000_000
    assert any("default-src 'none'" in meta.get("content", "") for meta in read.all("meta"))


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize(("width", "hint"), [(1400, "none"), (390, "block")])
def test_leaderboard_fits_a_wide_screen_and_says_that_it_scrolls_on_a_phone(
    reported: Path, tmp_path: Path, width: int, hint: str
) -> None:
    """With frames of both widths, because a window of Chromium is never as narrow as a phone."""
    script = """<script>onload = () => {
      const inside = document.querySelector("iframe").contentDocument;
      const table = inside.querySelector("#leaderboard .scroll");
      document.title = [table.scrollWidth > table.clientWidth, inside.body.scrollWidth > inside.body.clientWidth,
        getComputedStyle(inside.querySelector(".hint")).display].join();
    }</script>"""
    shutil.copy(reported / "reports/index.html", tmp_path)
    frame = f'<iframe src="index.html" style="border: 0; width: {width}px; height: 900px"></iframe>{script}'
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options = [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1500,1000", "--dump-dom"]
    done = run(tmp_path, *browser, *options, (tmp_path / "frame.html").as_uri())
    title = re.search("<title>(.*)</title>", done.stdout)
    assert title and title[1] == f"{str(width == 390).lower()},false,{hint}", done.stdout[:500]


def test_every_image_has_a_description(read: Reader) -> None:
    """Of its own, or of the row that it belongs to."""
    rows = [attributes["aria-label"] for attributes in read.all("div") if attributes.get("role") == "img"]
    assert len(rows) == 30  # classes of three datasets
    silent = [image for image in read.all("img") if not image["alt"]]
    assert len(silent) == sum(int(row.split()[0]) for row in rows)
    described = [image["alt"] for image in read.all("img") if image["alt"]]
    assert any(alt.startswith("Confusion of ") for alt in described)
    assert any("The largest confusion: " in text for text in read.texts)
    # Of the models with a convolution: cifar10_small_cnn_augmented, and the backbone of imagenette_vgg16
    assert sum(alt.startswith("What speaks for") for alt in described) == 2 * explain.IMAGES


def test_every_model_has_a_row_and_a_section(reported: Path, read: Reader) -> None:
    assert [details["id"] for details in read.all("details")] == [f"model-{name}" for name in sorted(MODELS)]
    identifiers = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = [anchor["href"] for anchor in read.all("a") if anchor["href"].startswith("#model-")]
    assert targets == [f"#model-{name}" for name in sorted(MODELS)]
    assert read.texts.count("synthetic data") == 2 * 2 + 2 * 3  # row and section of two models; rows and titles of data
    assert {heading["aria-sort"] for heading in read.all("th") if "aria-sort" in heading} == {"none"}
    for number, name in enumerate(MODELS):
        metrics = json.loads((reported / f"reports/metrics/{name}.json").read_text(encoding="utf-8"))
        assert percent(metrics["accuracy"]) in read.texts
        assert f"{metrics['macro_f1']:.3f}" in read.texts
        assert f"{number:032x}" in read.texts  # the MD5 of the model file
    for plot in ("Training", "Confusion", "Reliability"):
        assert read.texts.count(plot) == len(MODELS)


def test_images_not_in_the_pretraining_data_are_no_matter_on_synthetic_data(reported: Path, read: Reader) -> None:
    metrics = json.loads((reported / "reports/metrics/imagenette_vgg16.json").read_text(encoding="utf-8"))
    assert metrics["not_in_pretraining_images"]
    assert not [text for text in read.texts if "pretraining data" in text]


def test_accuracy_without_tta_stands_in_the_row_and_the_section_of_a_model_with_tta(
    reported: Path, read: Reader
) -> None:
    found = {
        name: json.loads((reported / f"reports/metrics/{name}.json").read_text(encoding="utf-8")) for name in MODELS
    }
    assert [name for name in MODELS if "accuracy_without_tta" in found[name]] == ["cifar10_small_cnn_augmented"]
    assert [text for text in read.texts if text.startswith("With test-time augmentation (TTA), the prediction")]
    assert read.texts.count("Without TTA") == 2  # a heading of the leaderboard, a line of the model's section
    assert percent(found["cifar10_small_cnn_augmented"]["accuracy_without_tta"]) in read.texts


def test_a_published_result_stands_only_beside_published_data(read: Reader) -> None:
    assert read.texts.count("78–80 %") == 1


def test_names_are_text_whatever_they_contain(reported: Path, read: Reader) -> None:
    for name in AWKWARD:
        assert name in read.texts
    assert len(read.all("script")) == 1
    assert "<script>alert" not in (reported / "reports/index.html").read_text(encoding="utf-8")


def test_a_published_value_may_be_a_range() -> None:
    assert page.published_range("90.67 %") == (90.67, 90.67)
    assert page.published_range("78–80 %") == (78, 80)
    assert page.published_range("not stated") is None
