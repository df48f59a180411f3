"""Figures and images as files of reports/figures, and embedded in the page."""

import base64
import io
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from matplotlib.figure import Figure
from PIL import Image

from stages.plots._style import DARK, styled
from stages.reporting.images import SMALL


class EmbeddedImage(NamedTuple):
    """An image of the page: its data URI, its width and height in CSS pixels, and in words what it shows."""

    source: str
    width: int
    height: int
    alt: str


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure on white as a PNG file, or as a JPEG file if it consists of photographs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
    else:
        figure.savefig(path, facecolor="white", pil_kwargs={"quality": 90, "subsampling": 0})
    figure.set_layout_engine("none")  # the layout stays; to compute it again for the page would take as long


def embed_figure(figure: Figure, alt: str) -> EmbeddedImage:
    """A figure as a drawing in the page."""
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    # Quoted instead of base64, because quoting makes plain text less long
    source = "data:image/svg+xml," + quote(svg(figure), safe=" !$()*+,/:;=?@[]{}|~")
    return EmbeddedImage(source, width, height, alt)


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


@styled
def svg(figure: Figure) -> str:
    """A figure as an SVG document on a transparent ground, light or dark like the reader's system."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    document = re.sub(r"<[^>]*>", lambda found: _shortened(found[0]), buffer.getvalue())
    names = {color: f"--c{number}" for number, color in enumerate(DARK)}
    document = re.sub("|".join(names), lambda found: f"var({names[found[0]]})", document[document.index("<svg") :])
    light = ";".join(f"{name}:{color}" for color, name in names.items())
    dark = ";".join(f"{names[color]}:{shade}" for color, shade in DARK.items())
    document = re.sub(r">\s+<", "><", document)
    style = (
        f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "text{font-family:system-ui,sans-serif!important}</style>"
    )
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, document, count=1)


def _shortened(tag: str) -> str:
    """A tag of an SVG document without what nobody sees: a third decimal, line breaks, fonts, rotations by nothing."""
    tag = re.sub(r"font-family: [^;]*; | transform=\"rotate\(-0 [^\"]*\"", "", tag)
    return " ".join(re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag).split())
