"""Draw a heat map over the image that it explains."""

import io

import numpy as np
from PIL import Image

SMALLEST_SIDE = 224  # of the drawing: a heat map over an image of 28 pixels would not be seen
COLOR = np.array([255, 96, 0], np.float32)  # of the parts that speak most for the class
STRENGTH = 0.75  # share of the color there


def draw(image: np.ndarray, heat: np.ndarray) -> bytes:
    """A grayscale version of an image, colored where its heat map is high.

    Args:
        image: uint8 (height, width, 1 or 3).
        heat: float32 (height, width) in [0, 1].

    Returns:
        A PNG file; small images are enlarged by a whole factor.
    """
    factor = -(-SMALLEST_SIDE // min(heat.shape))
    size = (heat.shape[1] * factor, heat.shape[0] * factor)
    gray = Image.fromarray(image.squeeze() if image.shape[-1] == 1 else image).convert("L")
    light = np.asarray(gray.resize(size, Image.Resampling.NEAREST), np.float32)[..., np.newaxis]
    share = STRENGTH * np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))[..., np.newaxis]
    file = io.BytesIO()
    Image.fromarray((light * (1 - share) + COLOR * share).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
