"""Example images for the report, chosen from the records. Records are streamed; only the chosen images are decoded."""

import itertools
from collections.abc import Collection, Iterator

import numpy as np
from PIL import Image, ImageOps

from stages.config.models import ModelConfig
from stages.data import reader
from stages.plots._style import ALL_CLASSES, SOME_CLASSES
from stages.training.augment import augment_images, build_augmentations

PER_CLASS = 8
NUM_AUGMENTED = 9
SCANNED = 50_000  # images that are searched for examples of a class
BATCH = 64
SMALL = 64  # an image up to this side is shown as it is, pixel by pixel
SIDE = 112  # side of a larger image's thumbnail


def examples(dataset: str, names: list[str]) -> dict[str, list[Image.Image]]:
    """The first training images of each class; of many classes, only of those to which the first images belong."""
    many = len(names) > ALL_CLASSES
    num_shown = SOME_CLASSES if many else len(names)
    chosen: dict[int, list[Image.Image]] = {} if many else {label: [] for label in range(num_shown)}
    for label, key, encoded in itertools.islice(_encoded(dataset, "train"), SCANNED):
        if len(chosen) < num_shown:
            chosen.setdefault(label, [])
        if label in chosen and len(chosen[label]) < PER_CLASS:
            chosen[label].append(thumbnail(reader.decode_image(dataset, key, encoded).numpy()))
        if sum(map(len, chosen.values())) == num_shown * PER_CLASS:
            break
    return {names[label]: chosen[label] for label in sorted(chosen)}


def split_images(dataset: str, split: str, keys: Collection[str]) -> dict[str, Image.Image]:
    """Images of a split by their keys."""
    chosen: dict[str, Image.Image] = {}
    for _, key, encoded in _encoded(dataset, split):
        if len(chosen) == len(keys):
            break
        if key in keys:
            chosen[key] = thumbnail(reader.decode_image(dataset, key, encoded).numpy())
    return chosen


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


def _encoded(dataset: str, split: str) -> Iterator[tuple[int, str, bytes]]:
    """Label, key and encoded image of each example."""
    reader.info(dataset)
    for batch in reader.batches(dataset, split, BATCH, decode=False):
        for label, key, encoded in zip(batch["label"], batch["key"], batch["input"], strict=True):
            yield int(label), key.decode(), encoded
