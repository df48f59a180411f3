"""Shift an image vertically and horizontally."""

from stages.config.types import Fraction
from stages.training.augment import Augmentation, LayerAugmentation


def build(seed: int, *, factor: Fraction) -> Augmentation:
    """Shift each axis for itself; what comes in from outside repeats the border.

    Args:
        seed: seeds the random numbers.
        factor: the largest shift as a fraction of height and width, both ways.
    """
    import keras

    # float32 whatever the model computes in: bfloat16 cannot tell neighboring pixel values apart.
    return LayerAugmentation(
        keras.layers.RandomTranslation(factor, factor, fill_mode="nearest", seed=seed, dtype="float32")
    )
