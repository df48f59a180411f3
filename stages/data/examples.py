"""The examples that readers of archives yield and the writer of records takes."""

import operator
import re
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
    first = ""  # the type of all images: bytes, or a shape
    for number, example in enumerate(examples):
        where = f"stages/data/formats/{module}.py: example {number}"
        try:
            split, key, image, label = example
            label = operator.index(label)
            key.encode()
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where} is not (split, key, image, label): {error}") from None
        if split not in SPLITS:
            raise UserError(f"{where} has the split {split!r}; yield one of {', '.join(SPLITS)}")
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        if kind != first:
            if not re.fullmatch(r"bytes|uint8 \(\d+, \d+, [13]\)", kind):
                raise UserError(
                    f"{where} has as image {kind}; yield uint8 (height, width, channels) with 1 or 3 channels, or the "
                    "bytes of a JPEG file"
                )
            if first:
                raise UserError(f"{where} has as image {kind} after others; yield one type and size for all")
            first = kind
        if not 0 <= label < classes:
            raise UserError(f"{where} has the label {label} of {classes} classes in params.yaml; correct one of them")
        yield split, key, image, label
