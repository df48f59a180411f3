"""Nested values under dotted keys: what MLflow, the model card and a search show of params."""

from collections.abc import Iterable, Mapping
from typing import Any


def flatten(values: Any, key: str = "") -> dict[str, Any]:
    """Each leaf of nested mappings under a dotted key; the mappings of a list under their positions.

    An empty mapping is a leaf: an augmentation without options is an augmentation. So is a list of plain values.
    """
    inner: Iterable[tuple[object, Any]]
    if isinstance(values, Mapping) and values:
        inner = values.items()
    elif isinstance(values, list | tuple) and any(isinstance(value, Mapping) for value in values):
        inner = enumerate(values)
    else:
        return {key: values}
    return {
        name: leaf
        for part, value in inner
        for name, leaf in flatten(value, f"{key}.{part}" if key else str(part)).items()
    }
