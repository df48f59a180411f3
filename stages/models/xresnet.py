"""ResNet with basic blocks and the stem and shortcuts of He et al., "Bag of tricks for image classification", 2018."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stages.config.types import Positive, Width

if TYPE_CHECKING:
    import keras

Channels = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=3)]
EPSILON = 1.001e-5  # PyTorch's 1e-5 in float32 is less than cuDNN takes


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    mean: Channels,
    std: Channels,
    stem: Annotated[list[Width], Field(min_length=1)],
    widths: Annotated[list[Width], Field(min_length=1)],
    blocks: Annotated[list[Positive], Field(min_length=1)],
    activation: Literal["relu", "mish", "silu", "gelu"],
) -> "keras.Model":
    """Convolutions of `stem`, the first with stride 2; 3×3 pooling; residual blocks; global average pooling; softmax.

    Args:
        input_shape: (height, width, channels); other heights and widths have the same weights.
        num_classes: width of the softmax layer.
        mean: mean of the pixels from 0 to 1, for each channel.
        std: standard deviation of these pixels, for each channel.
        stem: filters of each convolution before the blocks.
        widths: width of each stage; each but the first halves height and width.
        blocks: residual blocks of two convolutions in each stage, as many numbers as `widths` has.
        activation: after each batch normalization and each block.
    """
    import keras
    from keras import layers

    if len(blocks) != len(widths):
        raise ValueError(f"widths has {len(widths)} stages, blocks has {len(blocks)}")

    def conv_norm(
        outputs: "keras.KerasTensor", width: int, size: int = 3, stride: int = 1, gamma: str = "ones"
    ) -> "keras.KerasTensor":
        # With stride 2, PyTorch pads the other two sides: its mirror image
        initial = keras.initializers.VarianceScaling(2, "fan_in", "untruncated_normal")
        conv = layers.Conv2D(width, size, stride, padding="same", use_bias=False, kernel_initializer=initial)
        return layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, gamma_initializer=gamma)(conv(outputs))

    if len(mean) not in (1, input_shape[-1]) or len(std) != len(mean):
        raise ValueError(f"the images have {input_shape[-1]} channels, mean has {len(mean)} and std {len(std)}")
    inputs = keras.Input(input_shape)
    scale, offset = [1 / one for one in std], [-one / other for one, other in zip(mean, std, strict=True)]
    outputs = layers.Rescaling(scale, offset, dtype="float32")(inputs)
    for number, width in enumerate(stem):
        outputs = layers.Activation(activation)(conv_norm(outputs, width, stride=1 if number else 2))
    outputs = layers.MaxPooling2D(3, 2, padding="same")(outputs)
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            shortcut = layers.AveragePooling2D(2, padding="same")(outputs) if stride == 2 else outputs
            if shortcut.shape[-1] != width:
                shortcut = conv_norm(shortcut, width, 1)
            outputs = layers.Activation(activation)(conv_norm(outputs, width, stride=stride))
            outputs = conv_norm(outputs, width, gamma="zeros")  # a block starts as the identity
            outputs = layers.Activation(activation)(layers.add([outputs, shortcut]))
    outputs = layers.GlobalAveragePooling2D(dtype="float32")(outputs)
    outputs = layers.Dense(num_classes, activation="softmax", dtype="float32")(outputs)
    return keras.Model(inputs, outputs)
