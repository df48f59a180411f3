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
WHOLE = 1024  # longer side up to which an image is kept, to draw on what a model sees of it


def examples(dataset: str, names: list[str]) -> dict[str, list[Image.Image]]:
    """The first training images of each class; of many classes, only of those to which the first images belong."""
    many = len(names) > ALL_CLASSES
    num_shown = SOME_CLASSES if many else len(names)
    chosen: dict[int, list[Image.Image]] = {} if many else {label: [] for label in range(num_shown)}
    for key, label, encoded in itertools.islice(reader.examples(dataset, "train", decode=False), SCANNED):
        if len(chosen) < num_shown:
            chosen.setdefault(label, [])
        if label in chosen and len(chosen[label]) < PER_CLASS:
            chosen[label].append(thumbnail(as_image(reader.decode_image(dataset, key, encoded).numpy())))
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
    """Whole images of a split by their keys."""
    found = {}
    for key, encoded in stored(dataset, split, keys).items():
        found[key] = as_image(reader.decode_image(dataset, key, encoded).numpy())
        found[key].thumbnail((WHOLE, WHOLE), Image.Resampling.LANCZOS)
    return found


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
    return [thumbnail(as_image(each)) for each in (first["input"][0], *changed[::2])]


def as_image(pixels: np.ndarray) -> Image.Image:
    """Pixels (height, width, 1 or 3) of uint8 as an image."""
    return Image.fromarray(pixels.squeeze(axis=-1) if pixels.shape[-1] == 1 else pixels)


def thumbnail(image: Image.Image) -> Image.Image:
    """An image at the size in which the report shows it."""
    return image if max(image.size) <= SMALL else ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS)


def as_seen(image: Image.Image, shape: tuple[int, int], fit: str) -> Image.Image:
    """What a model of this height and width sees of a whole image, at the size in which the report shows it.

    Args:
        image: of any shape.
        shape: height and width that the model takes.
        fit: as in `stages.data.reader.resize`.
    """
    height, width = shape
    scale = (min if fit == "crop" else max)(image.height / height, image.width / width)
    if max(image.size) > SMALL:
        scale = min(scale, SIDE / max(shape))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    if fit == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    return (ImageOps.pad if fit == "pad" else ImageOps.fit)(image, size, Image.Resampling.LANCZOS)


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
