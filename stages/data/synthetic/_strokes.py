"""Generate labeled images: each class is a pattern of strokes in varying places, sizes, widths and colors.

The classes can be learned, but not perfectly, and neither from single pixels nor from color alone.

The bytes depend on the name of the dataset, its classes and the number of images, and on nothing else: not on the clock
and not on `seed`, which varies the training and not the data. Pixels are computed from sums, products and square roots,
which every processor rounds alike; sines and matrix products are not.
"""

import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.config.datasets import DatasetConfig

CORNERS = 5  # of a stroke, on a grid of 3 x 3


class ClassPattern(NamedTuple):
    """The features that all images of a class share."""

    corners: np.ndarray  # (CORNERS, 2): of the stroke, from -1 to 1
    stroke: np.ndarray  # (3,): its mean color as red, green, blue, from 0 to 255
    background: np.ndarray  # (3,): the mean color behind it
    thickness: float  # of the stroke, relative to the distance of grid points; the same in all classes of a dataset


def labeled_images(
    name: str, dataset: DatasetConfig, split: str, render: Callable[[ClassPattern, np.random.Generator], np.ndarray]
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield pairs (image, label) of a split in random order, with equally many images of each class."""
    patterns = _class_patterns(name, len(dataset.classes))
    rng = random_generator(name, split)
    for label in rng.permutation(np.arange(getattr(dataset.synthetic, split)) % len(patterns)):
        yield render(patterns[label], rng), int(label)


def random_generator(*names: str) -> np.random.Generator:
    """A random generator that is seeded with names."""
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def render_grayscale(pattern: ClassPattern, rng: np.random.Generator) -> np.ndarray:
    """Render white on black, uint8 (28, 28)."""
    stroke = _render_stroke(pattern, rng, 28, 28)
    return _to_uint8(rng.uniform(120, 255) * stroke + rng.normal(0, 10, stroke.shape))


def render_rgb(pattern: ClassPattern, rng: np.random.Generator, height: int = 32, width: int = 32) -> np.ndarray:
    """Render in colors near those of the class, on a background of soft patches: uint8 (height, width, 3)."""
    stroke = _render_stroke(pattern, rng, height, width)[..., None]
    color = 0.6 * pattern.stroke + 0.4 * rng.uniform(80, 255, 3)
    tint = 0.45 * pattern.background + 0.55 * rng.uniform(0, 120, 3)
    patches = Image.fromarray(_to_uint8(0.5 * tint + 0.5 * rng.uniform(0, 160, (4, 4, 3))))
    background = np.asarray(patches.resize((width, height), Image.Resampling.BILINEAR), float)
    return _to_uint8(stroke * color + (1 - stroke) * background + rng.normal(0, 10, background.shape))


def render_photo(pattern: ClassPattern, rng: np.random.Generator) -> np.ndarray:
    """Render as `render_rgb` in a random size, portrait or landscape."""
    short = int(rng.integers(64, 161))
    long = int(short * rng.uniform(1, 1.5))
    height, width = (short, long) if rng.random() < 0.5 else (long, short)
    return render_rgb(pattern, rng, height, width)


def _class_patterns(name: str, classes: int) -> list[ClassPattern]:
    rng = random_generator(name)
    grid = np.mgrid[-1:2, -1:2].reshape(2, 9).T.astype(float)
    thickness = rng.uniform(0.25, 0.4)
    return [
        ClassPattern(grid[rng.permutation(9)[:CORNERS]], rng.uniform(80, 255, 3), rng.uniform(0, 120, 3), thickness)
        for _ in range(classes)
    ]


def _render_stroke(pattern: ClassPattern, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Move, rotate, scale and bend the stroke a little: (height, width), 1 on the stroke, 0 elsewhere."""
    scale = min(height, width) * rng.uniform(0.24, 0.36)  # pixels between two grid points
    row, column = (size / 2 + min(height, width) * rng.uniform(-0.14, 0.14) for size in (height, width))
    t = rng.uniform(-0.2, 0.2)  # tangent of half the angle
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    y, x = ((np.arange(height) - row) / scale)[:, None], ((np.arange(width) - column) / scale)[None, :]
    y, x = cosine * y + sine * x, cosine * x - sine * y
    corners = pattern.corners + rng.normal(0, 0.15, pattern.corners.shape)
    distance = np.full((height, width), np.inf)
    for (y0, x0), (y1, x1) in pairwise(corners):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        off_y, off_x = y - y0 - along * dy, x - x0 - along * dx
        distance = np.minimum(distance, np.sqrt(off_y * off_y + off_x * off_x))
    thickness = pattern.thickness * rng.uniform(0.7, 1.3)
    return np.clip(0.5 + (thickness / 2 - distance) * scale, 0, 1)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
