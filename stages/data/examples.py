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
    shape: Any = None  # of all images, or bytes
    for number, example in enumerate(examples):
        try:
            split, key, image, label = example
        except (TypeError, ValueError):
            raise _error(module, number, f"is {_kind(example)}; yield (split, key, image, label)") from None
        if split not in SPLITS:
            raise _error(module, number, f"has the split {split!r}; yield one of {', '.join(SPLITS)}")
        if not isinstance(key, str) or not key or any("\ud800" <= character <= "\udfff" for character in key):
            raise _error(module, number, f"has the key {key!r}; yield text that is unique in its split")
        is_pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.size > 0
        if not isinstance(image, bytes) and not (is_pixels and image.shape[2] in (1, 3)):
            raise _error(
                module,
                number,
                f"has as image {_kind(image)}; yield uint8 (height, width, channels) with 1 or 3 channels, or the "
                "bytes of a JPEG file",
            )
        found = bytes if isinstance(image, bytes) else image.shape
        if shape not in (None, found):
            raise _error(module, number, f"has as image {_kind(image)} after others; yield one type and size for all")
        shape = found
        try:
            label = operator.index(label)
        except TypeError:
            raise _error(module, number, f"has as label {_kind(label)}; yield a whole number") from None
        if not 0 <= label < classes:
            raise _error(
                module, number, f"has the label {label} of {classes} classes in params.yaml; correct one of them"
            )
        yield split, key, image, label


def _error(module: str, number: int, what: str) -> UserError:
    return UserError(f"stages/data/formats/{module}.py: example {number} {what}")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return f"{type(value).__name__} {str(value)[:40]!r}"
