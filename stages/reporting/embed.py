"""Figures and images as parts of the page."""

import base64
import io
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

from stages.reporting.drawings import Drawing
from stages.reporting.images import SMALL


class EmbeddedImage(NamedTuple):
    """An image of the page: its data URI, its width and height in CSS pixels, and in words what it shows."""

    source: str
    width: int
    height: int
    alt: str


def embed_drawing(drawing: Drawing, alt: str) -> EmbeddedImage:
    """A figure in the page."""
    # Quoted instead of base64, because quoting makes plain text less long
    source = "data:image/svg+xml," + quote(drawing.svg, safe=" !$()*+,/:;=?@[]{}|~")
    return EmbeddedImage(source, drawing.width, drawing.height, alt)


def embed_image(image: Image.Image, alt: str) -> EmbeddedImage:
    """A thumbnail in the page: a small image with all its pixels, a photograph compressed."""
    buffer = io.BytesIO()
    small = max(image.size) <= SMALL
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return EmbeddedImage(source, *image.size, alt)
