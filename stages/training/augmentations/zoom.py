"""Zoom into an image or out of it."""

from stages.config.types import Fraction
from stages.training.augment import Augmentation, LayerAugmentation


def build(seed: int, *, factor: Fraction) -> Augmentation:
    """Zoom and keep the aspect ratio; pixels from outside are filled by reflection.

    Args:
        seed: seeds the random numbers.
        factor: the largest change of height and width as a fraction, both ways.
    """
    import keras

    # float32 whatever the model computes in: bfloat16 cannot tell neighboring pixel values apart.
    return LayerAugmentation(keras.layers.RandomZoom(factor, seed=seed, dtype="float32"))
