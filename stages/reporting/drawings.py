"""Figures of the page as SVG documents, and joblib's cache of what the last reports computed.

`paths.DRAWINGS`, the cache, may be removed: the bytes are the same.
"""

import functools
import hashlib
import io
import os
import re
import shutil
import warnings
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import joblib
from matplotlib.figure import Figure

from stages.plots._style import DARK, styled
from stages.runtime import numerics, paths

CODE = ("inference", "plots", "reporting")  # packages of stages/ that decide what is drawn
UNUSED = timedelta(days=30)  # how long an unused drawing is kept

Value = TypeVar("Value")


class Drawing(NamedTuple):
    """A figure as an SVG document, and its size in CSS pixels."""

    svg: str
    width: int
    height: int


def kept(function: Callable[..., Value], *arguments: object) -> Value:
    """Return what a function of stages/ returned for the same arguments in an earlier report, or call it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Persisting input arguments")  # says that the disk is busy
        result: Value = _memory().cache(function)(*arguments)
        return result


def remove_unused() -> None:
    """Remove what other versions of the code have kept, and what no report of the last month has used."""
    for folder in paths.DRAWINGS.glob("*"):
        if folder.name != _code():
            shutil.rmtree(folder, ignore_errors=True)
    _memory().reduce_size(age_limit=UNUSED)


def _memory() -> joblib.Memory:
    return joblib.Memory(paths.DRAWINGS / _code(), verbose=0)


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
    return Drawing(document, round(width), round(height))


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
