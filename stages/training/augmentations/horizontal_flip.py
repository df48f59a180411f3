"""Flip an image horizontally with a probability of one half."""

from stages.training.augment import Augmentation, LayerAugmentation


def build(seed: int) -> Augmentation:
    """Return the augmentation; it has no options."""
    import keras

    # float32 whatever the model computes in: bfloat16 cannot tell neighboring pixel values apart.
    return LayerAugmentation(keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
