"""Example images for the report, chosen from the records. Records are streamed; only the chosen images are decoded."""

import base64
import io
import itertools
from collections.abc import Collection
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from stages.config.models import ModelConfig
from stages.data import reader
from stages.plots._style import ALL_CLASSES, SOME_CLASSES
from stages.reporting.drawings import EmbeddedImage
from stages.training.augment import augment_images, build_augmentations

PER_CLASS = 8
NUM_AUGMENTED = 9
SCANNED = 50_000  # images that are searched for examples of a class
SMALL = 64  # an image up to this side is shown as it is, pixel by pixel
SIDE = 112  # side of a larger image's thumbnail


def examples(dataset: str, names: list[str]) -> dict[str, list[Image.Image]]:
    """The first training images of each class; of many classes, only of those to which the first images belong."""
    many = len(names) > ALL_CLASSES
    num_shown = SOME_CLASSES if many else len(names)
    chosen: dict[int, list[Image.Image]] = {} if many else {label: [] for label in range(num_shown)}
    for key, label, encoded in itertools.islice(reader.examples(dataset, "train", decode=False), SCANNED):
        if len(chosen) < num_shown:
            chosen.setdefault(label, [])
        if label in chosen and len(chosen[label]) < PER_CLASS:
            chosen[label].append(thumbnail(reader.decode_image(dataset, key, encoded).numpy()))
        if sum(map(len, chosen.values())) == num_shown * PER_CLASS:
            break
    return {names[label]: chosen[label] for label in sorted(chosen)}


def stored(dataset: str, split: str, keys: Collection[str], decode: bool = False) -> dict[str, Any]:
    """Examples of a split by their keys: files, or features if they are decoded."""
    found: dict[str, Any] = {}
    for key, _, value in reader.examples(dataset, split, decode):
        if len(found) == len(keys):
            break
        if key in keys:
            found[key] = value
    return found


def split_images(dataset: str, split: str, keys: Collection[str]) -> dict[str, Image.Image]:
    """Thumbnails of images of a split by their keys."""
    return {
        key: thumbnail(reader.decode_image(dataset, key, encoded).numpy())
        for key, encoded in stored(dataset, split, keys).items()
    }


def augmented(model: ModelConfig, seed: int) -> list[Image.Image]:
    """The first training image as the model gets it, and augmented as in training, nine times."""
    count = NUM_AUGMENTED + 1
    first = next(reader.batches(model.dataset, f"train[:{count}]", count, model.image_size))
    # Other images stand between the copies of the first, because some augmentations mix an image with its neighbor.
    others = 1 + np.arange(NUM_AUGMENTED) % max(1, len(first["label"]) - 1)
    chosen = np.stack([np.zeros_like(others), others], axis=1).ravel() % len(first["label"])
    num_classes = reader.info(model.dataset).features["label"].num_classes
    augmentations = build_augmentations(model.augment, seed)
    changed = augment_images(augmentations, first["input"][chosen], first["label"][chosen], num_classes)
    return [thumbnail(each) for each in (first["input"][0], *changed[::2])]


def thumbnail(image: np.ndarray) -> Image.Image:
    """An image (height, width, 1 or 3) of uint8 at the size in which the report shows it."""
    found = Image.fromarray(image.squeeze(axis=-1) if image.shape[-1] == 1 else image)
    if max(found.size) <= SMALL:
        return found
    return ImageOps.fit(found, (SIDE, SIDE), Image.Resampling.LANCZOS)


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
