"""Rotate an image."""

from stages.config.types import Fraction
from stages.training.augment import Augmentation, LayerAugmentation


def build(seed: int, *, factor: Fraction) -> Augmentation:
    """Rotate around the center; pixels from outside are filled by reflection.

    Args:
        seed: seeds the random numbers.
        factor: the largest angle as a fraction of a full turn, both ways.
    """
    import keras

    # float32 whatever the model computes in: bfloat16 cannot tell neighboring pixel values apart.
    return LayerAugmentation(keras.layers.RandomRotation(factor, seed=seed, dtype="float32"))
