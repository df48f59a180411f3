"""The networks of airbench for CIFAR-10 (Jordan, 2024): a fixed whitening layer and three groups of convolutions."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from stages.config.types import Fraction, Width

if TYPE_CHECKING:
    import keras

Channels = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=3)]


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    mean: Channels,
    std: Channels,
    widths: Annotated[list[Width], Field(min_length=1)],
    convolutions: Annotated[int, Field(ge=2, le=9)],
    norm_momentum: Fraction,
    logit_scale: Annotated[float, Field(gt=0)],
    residual: bool = False,
    random_whitening_bias: bool = False,
    unit_variance_head: bool = False,
) -> "keras.Model":
    """Whitening convolution, a group of convolutions and one 2×2 pooling for each of `widths`, 3×3 pooling, softmax.

    The layer `whitening` has random weights; give it those of the images by `initialize: [{name: whitening, …}]`, and
    do not train its kernel. Each 3×3 convolution starts as the identity of its first channels.

    Args:
        input_shape: (height, width, channels).
        num_classes: width of the softmax layer.
        mean: mean of the pixels from 0 to 1, for each channel.
        std: standard deviation of these pixels, for each channel.
        widths: width of each group.
        convolutions: number of convolutions in each group.
        norm_momentum: momentum of batch normalization's moving averages; it learns offsets but no scales.
        logit_scale: factor before the softmax.
        residual: whether all convolutions of a group but the first form a residual block.
        random_whitening_bias: the bias of `whitening` starts at random instead of zero.
        unit_variance_head: the weights of the last layer start with a variance of 1.
    """
    import keras
    from keras import layers

    def norm(name: str) -> "keras.layers.Layer":
        return layers.BatchNormalization(momentum=norm_momentum, epsilon=1e-12, scale=False, name=name)

    def conv(width: int, name: str) -> "keras.layers.Layer":
        initial = _torch_uniform()
        return layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=initial, name=name)

    if len(mean) not in (1, input_shape[-1]) or len(std) != len(mean):
        raise ValueError(f"the images have {input_shape[-1]} channels, mean has {len(mean)} and std {len(std)}")
    inputs = keras.Input(input_shape)
    scale, offset = [1 / one for one in std], [-one / other for one, other in zip(mean, std, strict=True)]
    outputs = layers.Rescaling(scale, offset, dtype="float32")(inputs)
    values = 2 * 2 * input_shape[-1]  # of a patch of the whitening layer
    bias = keras.initializers.RandomUniform(-(values**-0.5), values**-0.5) if random_whitening_bias else "zeros"
    # In float32: its weights are up to 45, which would amplify the rounding of pixels to 8 bits
    outputs = layers.Conv2D(2 * values, 2, bias_initializer=bias, dtype="float32", name="whitening")(outputs)
    outputs = layers.Activation("gelu")(outputs)
    for group, width in enumerate(widths, 1):
        outputs = conv(width, f"group{group}_conv1")(outputs)
        outputs = layers.MaxPooling2D(2)(outputs)
        outputs = layers.Activation("gelu")(norm(f"group{group}_norm1")(outputs))
        shortcut = outputs
        for number in range(2, convolutions + 1):
            outputs = conv(width, f"group{group}_conv{number}")(outputs)
            outputs = norm(f"group{group}_norm{number}")(outputs)
            if residual and number == convolutions:
                outputs = layers.add([outputs, shortcut])
            outputs = layers.Activation("gelu")(outputs)
    outputs = layers.Flatten()(layers.MaxPooling2D(3)(outputs))
    head = layers.Dense(num_classes, use_bias=False, kernel_initializer=_torch_uniform(), dtype="float32", name="head")
    outputs = layers.Rescaling(logit_scale, dtype="float32")(head(outputs))
    outputs = layers.Softmax(dtype="float32")(outputs)
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.name != "whitening":
            _start_as_identity(layer)
    if unit_variance_head:
        weights = keras.ops.convert_to_numpy(head.kernel)
        head.kernel.assign(weights / weights.std(ddof=1))
    return model


def _torch_uniform() -> Any:
    """PyTorch's default: uniform between ±1/√(number of inputs)."""
    import keras

    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _start_as_identity(layer: "keras.layers.Conv2D") -> None:
    """Let the first filters copy the channels; the others keep their random weights."""
    from keras import ops

    kernel = np.array(ops.convert_to_numpy(layer.kernel))
    copied = np.arange(min(kernel.shape[2:]))
    kernel[..., copied] = 0
    kernel[1, 1, copied, copied] = 1
    layer.kernel.assign(kernel)
