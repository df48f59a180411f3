"""Small archives drawn in the published formats, so that the pipeline runs on a machine without a network.

Each class is a pattern of strokes, as on a telephone's lock screen, drawn in ever other places, sizes and weights.
The classes can be learnt, but not perfectly from single pixels, nor from colour alone.

The formats are written here from their descriptions, not with what `stages.formats` knows of them: the two check each
other, and a change to a reader does not draw the samples anew.

The bytes depend on the dataset's name, classes and sample sizes, and on nothing else: no clock, and not `seed`, which
varies the training and not the data. Pixels come from sums, products and square roots, which round alike on every
processor; sines and matrix products need not.
"""

import gzip
import io
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image

from stages.console import UserError
from stages.params import Dataset, Weights

DOTS = 5  # of a pattern, out of a grid of 3 x 3
GREY_EVERY = 20  # Imagenette has a few JPEGs of one channel
UNSEEN = (0, 2)  # of every 5 test images of a class: these carry names of ImageNet's validation split
VGG16 = {"block1": [64] * 2, "block2": [128] * 2, "block3": [256] * 3, "block4": [512] * 3, "block5": [512] * 3}


class Look(NamedTuple):
    """What the images of a class have in common."""

    dots: np.ndarray  # (DOTS, 2): the corners of its line, from -1 to 1
    line: np.ndarray  # (3,): its usual colour, red, green, blue, from 0 to 255
    ground: np.ndarray  # (3,): that of what is behind it, as airplanes have sky
    thickness: float  # of the line, the dots being 1 apart; the same in all classes of a dataset


def draw(name: str, entry: Dataset | Weights, folder: Path) -> None:
    """Write the archives of `entry` into `folder`, under the file names of params.yaml.

    Raises:
        UserError: a sample of this format or of these weights cannot be drawn, or not under these file names.
    """
    if isinstance(entry, Dataset):
        key, what = f"datasets.{name}", f"format {entry.format}"
        archives = {"idx": _idx, "cifar": _cifar, "image_folder": _image_folder}.get(entry.format)
        files = archives(name, entry) if archives else None
    else:
        key, what = f"weights.{name}", "these weights"
        files = _vgg16(entry) if name == "vgg16" else None
    if files is None:
        raise UserError(f"params.yaml: {key}: a sample of {what} cannot be drawn; set source: published there")
    if set(files) != set(entry.files):
        raise UserError(f"params.yaml: {key}.files: {what} has the files {', '.join(files)}; name them so")
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)


def _idx(name: str, dataset: Dataset) -> dict[str, bytes]:
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = zip(*_pictures(name, dataset, split, _grey), strict=True)
        header = struct.pack(">IIII", 0x0803, len(images), *images[0].shape)
        files[f"{prefix}-images-idx3-ubyte.gz"] = _gzip(header + b"".join(image.tobytes() for image in images))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = _gzip(struct.pack(">II", 0x0801, len(labels)) + bytes(labels))
    return files


def _cifar(name: str, dataset: Dataset) -> dict[str, bytes]:
    def records(split: str) -> list[bytes]:
        pictures = _pictures(name, dataset, split, _colour)
        return [bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in pictures]

    train, test = records("train"), records("test")
    members = {"batches.meta.txt": "\n".join([*dataset.classes, "", ""]).encode(), "test_batch.bin": b"".join(test)}
    for number in (1, 3, 4, 5, 2):  # the published archive is not in order either
        members[f"data_batch_{number}.bin"] = b"".join(train[number - 1 :: 5])
    return {_one(dataset, ".tar.gz"): _tar({f"cifar-10-batches-bin/{file}": data for file, data in members.items()})}


def _image_folder(name: str, dataset: Dataset) -> dict[str, bytes]:
    file = _one(dataset, ".tgz")
    top = file.removesuffix(".tgz")
    members = {f"{top}/noisy_imagenette.csv": b"path,noisy_labels_0\n"}  # no image: to be passed over
    folders = list(dataset.classes)
    for split, split_folder in (("train", "train"), ("test", "val")):
        seen: Counter[int] = Counter()  # images of each class
        pictures = sorted(_pictures(name, dataset, split, _photo), key=lambda picture: picture[1])
        for index, (image, label) in enumerate(pictures):
            unseen = split == "test" and seen[label] % 5 in UNSEEN
            seen[label] += 1
            stem = f"ILSVRC2012_val_{index:08d}" if unseen else f"{folders[label]}_{index}"
            jpeg = _jpeg(image, grey=index % GREY_EVERY == 0)
            members[f"{top}/{split_folder}/{folders[label]}/{stem}.JPEG"] = jpeg
    return {file: _tar(members)}


def _vgg16(weights: Weights) -> dict[str, bytes]:
    """VGG16 without its top in Keras's published layout, He-normal: random features, in the range of trained ones."""
    rng = _rng("vgg16")
    buffer = io.BytesIO()
    channels = 3
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        layers = []
        for block, filters in VGG16.items():
            for number, outputs in enumerate(filters, 1):
                layers.append(f"{block}_conv{number}")
                kernel = rng.standard_normal((3, 3, channels, outputs), np.float32)
                kernel *= np.float32((2 / (9 * channels)) ** 0.5)
                group = file.create_group(layers[-1])
                arrays = {f"{layers[-1]}_W_1:0": kernel, f"{layers[-1]}_b_1:0": np.zeros(outputs, np.float32)}
                group.attrs["weight_names"] = np.array(list(arrays), "S")
                for array_name, array in arrays.items():
                    group.create_dataset(array_name, data=array, track_times=False)
                channels = outputs
            layers.append(f"{block}_pool")
            file.create_group(layers[-1]).attrs["weight_names"] = np.array([])
        file.attrs["layer_names"] = np.array(layers, "S")
    return {_one(weights, ".h5"): buffer.getvalue()}


def _pictures(
    name: str, dataset: Dataset, split: str, paint: Callable[[Look, np.random.Generator], np.ndarray]
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (image, label), as many of each class as of any other, shuffled."""
    looks = _looks(name, len(dataset.classes))
    rng = _rng(name, split)
    for label in rng.permutation(np.arange(getattr(dataset.sample, split)) % len(looks)):
        yield paint(looks[label], rng), int(label)


def _looks(name: str, classes: int) -> list[Look]:
    rng = _rng(name)
    grid = np.mgrid[-1:2, -1:2].reshape(2, 9).T.astype(float)
    thickness = rng.uniform(0.25, 0.4)
    return [
        Look(grid[rng.permutation(9)[:DOTS]], rng.uniform(80, 255, 3), rng.uniform(0, 120, 3), thickness)
        for _ in range(classes)
    ]


def _grey(look: Look, rng: np.random.Generator) -> np.ndarray:
    """White on black, uint8 (28, 28)."""
    ink = _ink(look, rng, 28, 28)
    return _uint8(rng.uniform(120, 255) * ink + rng.normal(0, 10, ink.shape))


def _colour(look: Look, rng: np.random.Generator, height: int = 32, width: int = 32) -> np.ndarray:
    """Colours that only lean to those of the class, on a ground of soft patches: uint8 (height, width, 3)."""
    ink = _ink(look, rng, height, width)[..., None]
    colour = 0.6 * look.line + 0.4 * rng.uniform(80, 255, 3)
    tint = 0.45 * look.ground + 0.55 * rng.uniform(0, 120, 3)
    patches = Image.fromarray(_uint8(0.5 * tint + 0.5 * rng.uniform(0, 160, (4, 4, 3))))
    ground = np.asarray(patches.resize((width, height), Image.Resampling.BILINEAR), float)
    return _uint8(ink * colour + (1 - ink) * ground + rng.normal(0, 10, ground.shape))


def _photo(look: Look, rng: np.random.Generator) -> np.ndarray:
    """The same in a size of its own, upright or wide."""
    short = int(rng.integers(64, 161))
    long = int(short * rng.uniform(1, 1.5))
    height, width = (short, long) if rng.random() < 0.5 else (long, short)
    return _colour(look, rng, height, width)


def _ink(look: Look, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """The pattern, moved, turned, scaled and bent a little: (height, width), 1 on the line, 0 off it."""
    scale = min(height, width) * rng.uniform(0.24, 0.36)  # pixels from dot to dot
    row, column = (size / 2 + min(height, width) * rng.uniform(-0.14, 0.14) for size in (height, width))
    t = rng.uniform(-0.2, 0.2)  # the tangent of half the angle
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    y, x = ((np.arange(height) - row) / scale)[:, None], ((np.arange(width) - column) / scale)[None, :]
    y, x = cosine * y + sine * x, cosine * x - sine * y
    dots = look.dots + rng.normal(0, 0.15, look.dots.shape)
    distance = np.full((height, width), np.inf)
    for (y0, x0), (y1, x1) in pairwise(dots):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        away_y, away_x = y - y0 - along * dy, x - x0 - along * dx
        distance = np.minimum(distance, np.sqrt(away_y * away_y + away_x * away_x))
    thickness = look.thickness * rng.uniform(0.7, 1.3)
    return np.clip(0.5 + (thickness / 2 - distance) * scale, 0, 1)


def _uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _jpeg(image: np.ndarray, grey: bool) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    (picture.convert("L") if grey else picture).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)  # no time, no owner, mode 644
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return _gzip(buffer.getvalue())


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _one(entry: Dataset | Weights, suffix: str) -> str:
    """The one file name of an entry whose format has only one, or what it might be."""
    return next((file for file in entry.files if file.endswith(suffix)), f"NAME{suffix}")


def _rng(*names: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))
