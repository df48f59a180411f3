"""The examples that readers of archives yield and the writer of records takes."""

import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from stages.runtime.errors import UserError

SPLITS = ("train", "test")  # of archives

# Split; key; image as uint8 (height, width, channels), JPEG bytes or feature tensor; label
Example = tuple[str, str, Any, int]
Checked = tuple[Example, str]  # an example, and what is wrong with its image or an empty string


def check_types(examples: Iterable[Example], module: str, classes: int) -> Iterator[Example]:
    """Yield the examples of a format's reader, if they are what the writer of records takes.

    Args:
        examples: what `examples` or an input of the module yields.
        module: name of the format.
        classes: number of classes.

    Raises:
        UserError: they are not; the message names the module.
    """
    first: Any = None  # the type of all images: bytes, or a shape
    for number, example in enumerate(examples):
        where = f"stages/data/formats/{module}.py: example {number}"
        try:
            split, key, image, label = example
            is_pixels = isinstance(image, np.ndarray)
            found: Any = (image.dtype.name, image.ndim, image.shape[2]) if is_pixels else type(image)
            label = operator.index(label)
            key.encode()
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"{where} is not (split, key, image, label): {error}") from None
        if split not in SPLITS:
            raise UserError(f"{where} has the split {split!r}; yield one of {', '.join(SPLITS)}")
        if found not in (bytes, ("uint8", 3, 1), ("uint8", 3, 3)):
            raise UserError(
                f"{where} has as image {_kind(image)}; yield uint8 (height, width, channels) with 1 or 3 channels, or "
                "the bytes of a JPEG file"
            )
        kind = image.shape if is_pixels else bytes
        if first not in (None, kind):
            raise UserError(f"{where} has as image {_kind(image)} after others; yield one type and size for all")
        first = kind
        if not 0 <= label < classes:
            raise UserError(f"{where} has the label {label} of {classes} classes in params.yaml; correct one of them")
        yield split, key, image, label


def _kind(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
