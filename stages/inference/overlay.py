"""Draw a heat map over the image that it explains."""

import io

import numpy as np
from PIL import Image

SMALLEST_SIDE = 224  # least pixels of a PNG's sides: a heat map over 28 pixels would not be seen
COLOR = np.array([255, 96, 0], np.float32)  # where the image speaks most for the class
STRENGTH = 0.75  # share of the color there


def draw(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """A grayscale version of an image, colored where its heat map is high.

    Args:
        image: image of any mode and size.
        heat: float32 (height, width) in [0, 1], stretched to the image.
    """
    light = np.asarray(image.convert("L"), np.float32)[..., np.newaxis]
    share = STRENGTH * np.asarray(Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR))[..., np.newaxis]
    return Image.fromarray(np.round(light * (1 - share) + COLOR * share).astype(np.uint8))


def draw_png(pixels: np.ndarray, heat: np.ndarray) -> bytes:
    """The same as a PNG file; a small image is enlarged by a whole factor.

    Args:
        pixels: uint8 (height, width, 1 or 3).
        heat: float32 (height, width) in [0, 1].
    """
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    factor = -(-SMALLEST_SIDE // min(image.size))
    file = io.BytesIO()
    draw(image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST), heat).save(file, "PNG")
    return file.getvalue()
