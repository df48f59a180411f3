"""Heat maps over images."""

import io

import numpy as np
from PIL import Image

from stages.inference.overlay import COLOR, STRENGTH, draw, draw_png


def test_image_is_colored_where_the_heat_is_and_else_gray() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[:2, :2] = 1
    found = np.asarray(draw(Image.new("RGB", (8, 8), (200, 100, 0)), heat))
    light = 0.299 * 200 + 0.587 * 100
    np.testing.assert_allclose(found[6:, 6:], np.full((2, 2, 3), light), atol=1)
    np.testing.assert_allclose(found[0, 0], (1 - STRENGTH) * light + STRENGTH * COLOR, atol=1)


def test_small_image_becomes_a_png_file_that_can_be_seen() -> None:
    heat = np.zeros((28, 28), np.float32)
    for channels in (1, 3):
        file = Image.open(io.BytesIO(draw_png(np.full((28, 28, channels), 90, np.uint8), heat)))
        assert (file.format, file.size) == ("PNG", (224, 224))
        assert set(np.unique(np.asarray(file))) == {90}
