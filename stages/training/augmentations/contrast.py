"""Change the contrast of an image."""

from stages.config.types import Fraction
from stages.training.augment import Augmentation, LayerAugmentation


def build(seed: int, *, factor: Fraction) -> Augmentation:
    """Multiply the distance of each pixel from the mean of its channel.

    Args:
        seed: seeds the random numbers.
        factor: the largest change of the multiplier 1, both ways.
    """
    import keras

    # float32 whatever the model computes in: bfloat16 cannot tell neighboring pixel values apart.
    return LayerAugmentation(keras.layers.RandomContrast(factor, seed=seed, dtype="float32"))
