"""Drawings of the page: figures, pictures of several images, heat maps. What the last reports drew is not drawn again.

`kept` stores results under a hash of all that they depend on. `paths.DRAWINGS` may be removed: the bytes are the same.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import time
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from stages.plots._style import DARK, styled
from stages.reporting import fonts
from stages.runtime import numerics, paths
from stages.runtime.files import atomic_write

CODE = ("inference", "plots", "reporting")  # packages of stages/ that decide what is drawn
DAYS = 30  # that an unused drawing is kept


class Drawing(NamedTuple):
    """A figure as an SVG document for the page, its size in CSS pixels, and as a PNG file on white."""

    svg: str
    width: int
    height: int
    png: bytes


def draw(make: Callable[[], Figure], *data: object) -> Drawing:
    """Draw the figure that `make` returns, unless a report drew it from the same `data` before."""
    found = kept(lambda: _draw(make()), "figure", *data)
    width, height = found["size"].tolist()
    return Drawing(found["svg"].tobytes().decode(), width, height, found["png"].tobytes())


def photographs(make: Callable[[], Figure], *data: object) -> bytes:
    """Draw a figure that consists of photographs as a JPEG file, or take it from an earlier report as `draw` does."""
    return kept(lambda: _draw_photographs(make()), "photographs", *data)["jpeg"].tobytes()


def kept(make: Callable[[], dict[str, np.ndarray]], *data: object) -> dict[str, np.ndarray]:
    """What `make` returns, or what it returned in an earlier report.

    Args:
        make: a function whose result depends on `data` and on the code of the report alone.
        data: images, arrays, tables, texts and numbers, also in lists and dictionaries.
    """
    path = paths.DRAWINGS / f"{_digest(data)}.npz"
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), np.load(path) as file:
        found = dict(file)
        os.utime(path)
        return found
    found = make()
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **found)
    return found


def remove_unused() -> None:
    """Remove the drawings that no report of the last month has used."""
    for path in paths.DRAWINGS.glob("*.npz"):
        with contextlib.suppress(FileNotFoundError):  # another report removes them, too
            if path.stat().st_mtime < time.time() - DAYS * 24 * 3600:
                path.unlink()


def _draw(figure: Figure) -> dict[str, np.ndarray]:
    lacking = fonts.choose(figure)
    with warnings.catch_warnings():
        if lacking:  # a browser has other fonts
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
        document = svg(figure)
    width, height = figure.get_size_inches() * 96
    if lacking:
        fonts.spell_out(figure, lacking)
    else:
        figure.set_layout_engine("none")  # the layout stays; to compute it again would take as long as the drawing
    png = _save(figure, format="png", dpi=150, metadata={"Software": None})
    return {"svg": _array(document.encode()), "size": np.array([round(width), round(height)]), "png": _array(png)}


def _draw_photographs(figure: Figure) -> dict[str, np.ndarray]:
    if lacking := fonts.choose(figure):
        fonts.spell_out(figure, lacking)
    return {"jpeg": _array(_save(figure, format="jpeg", pil_kwargs={"quality": 90, "subsampling": 0}))}


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


@styled
def _save(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, facecolor="white", **options)
    return buffer.getvalue()


def _array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def _digest(data: tuple[object, ...]) -> str:
    digest = hashlib.blake2b(_code(), digest_size=20)
    for value in data:
        content = _content(value)
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _content(value: object) -> bytes:
    if isinstance(value, Image.Image):
        return f"{value.mode} {value.size}".encode() + value.tobytes()
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}".encode() + value.tobytes()
    if isinstance(value, pd.DataFrame):
        return value.to_csv(index=False).encode()
    if isinstance(value, dict):
        return _content(list(value.items()))
    if isinstance(value, list | tuple):
        return b"".join(len(each).to_bytes(8, "little") + each for each in map(_content, value))
    if isinstance(value, str | int | float):
        return repr(value).encode()
    raise TypeError(f"{type(value).__name__}: what identifies it is not known here")


@functools.cache
def _code() -> bytes:
    """A hash of the code, the versions, the fonts and the settings that decide what is drawn."""
    stages = Path(__file__).parent.parent
    files = sorted(path for package in CODE for path in (stages / package).rglob("*.py"))
    digest = hashlib.blake2b()
    for path in files:
        digest.update(path.read_bytes())
    versions = {**numerics.machine(), **{name: version(name) for name in ("matplotlib", "pillow", "pandas")}}
    kernels = {key: value for key, value in os.environ.items() if key.startswith("ONEDNN_")}
    digest.update(repr((versions, sorted(kernels.items()), fonts.installed())).encode())
    return digest.digest()
