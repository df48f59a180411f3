"""The images that the report shows, chosen from the records: streamed, and only those are kept."""

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageOps

from stages import augment, params, records

SAMPLES = 8  # images of each class
WAYS = 9  # in which an image is augmented
SMALL = 64  # an image up to this side is shown as it is, pixel by pixel
SIDE = 112  # the side of a larger one, cut and reduced as for a model that takes images of this size


def samples(dataset: str, counts: dict[str, int]) -> dict[str, list[Image.Image]]:
    """The first images of each class in the training split.

    Args:
        dataset: its name.
        counts: the class names in the order of the labels, and how many images there are of each.
    """
    chosen: dict[str, list[Image.Image]] = {name: [] for name in counts}
    missing = sum(min(SAMPLES, count) for count in counts.values())
    names = list(counts)
    for label, _, image in _examples(dataset, "train"):
        if not missing:
            break
        images = chosen[names[label]]
        if len(images) < SAMPLES:
            images.append(shown(image))
            missing -= 1
    return chosen


def tested(dataset: str, keys: Iterable[str]) -> dict[str, Image.Image]:
    """Images of the test split by their keys."""
    wanted = set(keys)
    chosen: dict[str, Image.Image] = {}
    for _, key, image in _examples(dataset, "test"):
        if len(chosen) == len(wanted):
            break
        if key in wanted:
            chosen[key] = shown(image)
    return chosen


def augmented(recipe: params.Model, seed: int) -> list[Image.Image]:
    """The first training image as the model gets it, and in nine ways as its layers change it in training."""
    _, _, image = next(_examples(recipe.dataset, "train[:1]", recipe.image_size))
    assert recipe.augment is not None
    batch = np.repeat(image[None].astype(np.float32), WAYS, axis=0)
    for layer in augment.layers(recipe.augment, seed):
        batch = np.asarray(layer(batch, training=True))
    changed = np.clip(batch.round(), 0, 255).astype(np.uint8)
    return [shown(way) for way in (image, *changed)]


def _examples(dataset: str, split: str, image_size: int | None = None) -> Iterator[tuple[int, str, np.ndarray]]:
    """(label, key, image), one at a time: their sizes may differ. Damaged records are named."""
    records.info(dataset)
    for batch in records.batches(dataset, split, 1, image_size):
        yield int(batch["label"][0]), batch["key"][0].decode(), batch["input"][0]


def shown(image: np.ndarray) -> Image.Image:
    """An image (height, width, 1 or 3) of uint8 at the size in which the report shows it."""
    picture = Image.fromarray(image.squeeze(axis=-1) if image.shape[-1] == 1 else image)
    if max(picture.size) <= SMALL:
        return picture
    return ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.LANCZOS)
