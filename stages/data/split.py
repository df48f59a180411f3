"""Choose the splits of a dataset that has none: by hashes of names, so that new images move no other."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable


def held_out(units: Iterable[tuple[str, str]], fraction: float) -> set[str]:
    """Choose which images, or groups of images, are not for training but, for example, the test split.

    A unit is held out if its hash, as a number from 0 to 1, is less than `fraction`. So about this fraction of each
    class is, and what else is in the dataset does not matter. There is one exception, for small classes: a class
    without training units gets its unit with the highest hash back, and one of several units of which none is held out
    gives that with the lowest.

    Args:
        units: the unit of each image, such as its key or the name of its group, and its class.
        fraction: of the images, from 0 to 1. To choose another split from what a first call left for training, give it
            the sum of both fractions: all hashes below the first are taken.

    Returns:
        The units that are held out.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for unit, name in units:
        classes[name].add(unit)
    hashes = {unit: _hash(unit) for found in classes.values() for unit in found}
    chosen = {unit for unit, value in hashes.items() if value < fraction}
    orders = [sorted(classes[name], key=lambda unit: (hashes[unit], unit)) for name in sorted(classes)]
    for order in orders:
        if chosen.issuperset(order):
            chosen.remove(order[-1])
        elif len(order) > 1 and not chosen.intersection(order):
            chosen.add(order[0])
    for order in orders:  # a unit of several classes may have been the last of another one
        if chosen.issuperset(order):
            chosen.remove(order[-1])
    return chosen


def _hash(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
