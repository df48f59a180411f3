"""One pass over the records of a dataset: of each image a hash, a thumbnail and a few measures, about 1 kB."""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from stages.auditing.quality import MEASURES, measure
from stages.runtime.progress import progress

SIDE = 16  # of a thumbnail, in pixels
DIGEST = 16  # bytes: two different images have the same hash once in 10^26 datasets of a million


@dataclass(frozen=True)
class Images:
    """The images of all splits, those of the first split first."""

    splits: list[str]  # as `split_names` returns them
    classes: list[str]
    split: np.ndarray  # (n,) int8: position in `splits`
    keys: np.ndarray  # (n,) object: str
    labels: np.ndarray  # (n,) int32
    digests: np.ndarray  # (n,) S16: hash of size and pixels
    thumbnails: np.ndarray  # (n, 16, 16, channels) uint8, whatever the shape of the image
    measures: dict[str, np.ndarray]  # of `quality.MEASURES`: (n,) float32


def describe(dataset: str) -> Images:
    """Read and describe all images of a dataset; O(n) in time and memory.

    Raises:
        UserError: the records are missing or corrupt, or an image cannot be decoded.
    """
    from stages.data import reader

    info = reader.info(dataset)
    splits = {name: split.num_examples for name, split in info.splits.items()}
    size, channels = sum(splits.values()), info.features["input"].shape[-1]
    names = split_names(dataset)
    images = Images(
        splits=names,
        classes=info.features["label"].names,
        split=np.repeat(np.arange(len(names), dtype=np.int8), [splits[name] for name in names]),
        keys=np.empty(size, object),
        labels=np.empty(size, np.int32),
        digests=np.empty(size, f"S{DIGEST}"),
        thumbnails=np.empty((size, SIDE, SIDE, channels), np.uint8),
        measures={name: np.empty(size, np.float32) for name in MEASURES},
    )
    found = itertools.chain.from_iterable(reader.examples(dataset, split, decode=False) for split in names)
    for at, (key, label, data) in enumerate(progress(found, size, dataset, "images")):
        pixels = reader.decode_image(dataset, key, data, channels).numpy()
        image = Image.fromarray(pixels.squeeze(axis=-1) if channels == 1 else pixels)
        images.keys[at], images.labels[at] = key, label
        content = str(pixels.shape).encode() + pixels.tobytes()
        images.digests[at] = hashlib.blake2b(content, digest_size=DIGEST).digest()
        images.thumbnails[at] = thumbnail(image).reshape(SIDE, SIDE, -1)
        for name, value in measure(image).items():
            images.measures[name][at] = value
    return images


def split_names(dataset: str) -> list[str]:
    """The splits of a dataset, from training to test: a duplicate is a fault of the later split."""
    from stages.data import reader

    return [name for name in ("train", "validation", "test") if name in reader.info(dataset).splits]


def thumbnail(image: Image.Image) -> np.ndarray:
    """The thumbnail of an image as uint8; that of the mirrored image is its mirror.

    Pillow rounds the edges of the averaged boxes to one side, so the mean with the mirrored way is taken.
    """
    left, right = (
        np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BOX), np.uint16)
        for each in (image, ImageOps.mirror(image))
    )
    return ((left + right[:, ::-1]) // 2).astype(np.uint8)
