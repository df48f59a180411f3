"""Figures of data."""

import io
from pathlib import Path

import pytest
from PIL import Image

from stages.reporting import drawings, figures


def test_a_grid_shows_every_image_pixel_by_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    images = [
        (Image.new("RGB", (28, 28), color), figures.misclassified_caption("cat", "dog", 0.987)) for color in colors
    ]
    picture = Image.open(io.BytesIO(drawings.draw(lambda: figures.grid(images, columns=2)).png)).convert("RGB")
    shares = {color: count / (picture.width * picture.height) for count, color in picture.getcolors(1 << 24) or []}
    for color in colors:
        assert 0.13 < shares[color] < 0.2, shares.get(color)  # of a canvas for four, with captions


@pytest.mark.parametrize("classes", [40, 21_000])
def test_a_distribution_is_bounded_for_any_number_of_classes(classes: int) -> None:
    counts = {split: {f"class {label}": label for label in range(classes)} for split in ("train", "validation", "test")}
    figure = figures.distribution(counts)
    assert max(figure.get_size_inches()) < 10
    assert len(drawings.svg(figure)) < 60_000
