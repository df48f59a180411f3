"""Figures of the page as SVG documents, and a cache of what the last reports computed.

`paths.DRAWINGS`, the cache, may be removed: the bytes are the same.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.plots._style import DARK, styled
from stages.runtime import numerics, paths
from stages.runtime.files import atomic_write

Drawing = tuple[str, int, int]  # a figure as an SVG document, and its size in CSS pixels
CODE = ("inference", "plots", "reporting")  # packages of stages/ that decide what is drawn


class EmbeddedImage(NamedTuple):
    """An image of the page: its data URI, its width and height in CSS pixels, and in words what it shows."""

    source: str
    width: int
    height: int
    alt: str


def kept(function: Callable[..., Sequence[Any]], *arguments: Any) -> list[np.ndarray]:
    """Return what a function of stages/ returned for the same arguments in an earlier report, or call it.

    The file holds arrays alone: reading it runs no code.

    Args:
        function: returns some arrays, numbers or texts.
        arguments: of the function: texts, lists of texts, arrays and tables.
    """
    digest = hashlib.blake2b(function.__qualname__.encode(), digest_size=20)
    for argument in arguments:
        table = argument.to_csv() if isinstance(argument, pd.DataFrame) else repr(argument)
        content = argument.tobytes() if isinstance(argument, np.ndarray) else table.encode()
        digest.update(repr((getattr(argument, "shape", None), len(content))).encode() + content)
    path = paths.DRAWINGS / _code() / f"{digest.hexdigest()}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = [archive[name] for name in archive.files]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # none yet, or one that a killed process left
        values = list(map(np.asarray, function(*arguments)))
        own = path.with_suffix(f".{os.getpid()}")  # a report of another experiment may draw the same now
        with contextlib.suppress(FileNotFoundError):  # or remove the folder
            with atomic_write(own) as part, part.open("wb") as file:
                np.savez_compressed(file, *values)
            os.replace(own, path)
    return values


def remove_unused() -> None:
    """Remove what other versions of the code have kept; a report of one of them that runs now draws it again."""
    for folder in paths.DRAWINGS.glob("*"):
        if folder.name != _code():
            shutil.rmtree(folder, ignore_errors=True)


@styled
def draw(figure: Figure) -> Drawing:
    """Draw a figure on a transparent ground, light or dark like the reader's system, with the reader's fonts."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the text stays text: a browser has more fonts
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
    width, height = figure.get_size_inches() * 96
    document = re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, document, count=1)
    return document, round(width), round(height)


def embed_drawing(svg: Any, width: Any, height: Any, alt: str) -> EmbeddedImage:
    """A figure in the page."""
    # Quoted instead of base64, because quoting makes plain text less long
    source = "data:image/svg+xml," + quote(str(svg), safe=" !$()*+,/:;=?@[]{}|~")
    return EmbeddedImage(source, int(width), int(height), alt)


def _shortened(tag: str) -> str:
    """A tag of an SVG document without what nobody sees: a third decimal, line breaks, fonts, rotations by nothing."""
    tag = re.sub(r"font-family: [^;]*; | transform=\"rotate\(-0 [^\"]*\"", "", tag)
    return " ".join(re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag).split())


@functools.cache
def _code() -> str:
    """A hash of the code, the versions and the settings that decide what is computed for the page."""
    stages = Path(__file__).parent.parent
    digest = hashlib.blake2b(digest_size=20)
    for path in sorted(path for package in CODE for path in (stages / package).rglob("*.py")):
        digest.update(path.read_bytes())
    versions = {**numerics.machine(), **{name: version(name) for name in ("matplotlib", "pillow", "pandas")}}
    kernels = {key: value for key, value in os.environ.items() if key.startswith("ONEDNN_")}
    digest.update(repr((versions, sorted(kernels.items()))).encode())
    return digest.hexdigest()
