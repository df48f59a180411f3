"""A residual network of wide grouped convolutions with squeeze-and-excitation: pete88b's mini_net for Imagenette."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stages.config.types import Positive, Width

if TYPE_CHECKING:
    import keras

EPSILON = 1.001e-5  # PyTorch's 1e-5 in float32 is less than cuDNN takes
STEM = 32, 32, 64


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    channel_groups: Positive,
    reduction: Positive,
    widths: Annotated[list[Width], Field(min_length=1)],
    inner_widths: Annotated[list[Width], Field(min_length=1)],
) -> "keras.Model":
    """Three convolutions, 3×3 pooling, a residual block for each of `widths`, global average pooling, softmax.

    Args:
        input_shape: (height, width, channels); other heights and widths have the same weights.
        num_classes: width of the softmax layer.
        channel_groups: number of groups of each grouped convolution.
        reduction: factor by which squeeze-and-excitation reduces the channels.
        widths: output channels of each block; each but the first block halves height and width.
        inner_widths: channels of the grouped convolution in each block, as many as `widths`.
    """
    import keras
    from keras import layers

    def he_normal() -> "keras.initializers.Initializer":
        return keras.initializers.VarianceScaling(2, "fan_in", "untruncated_normal")

    def norm(outputs: "keras.KerasTensor", gamma: str = "ones") -> "keras.KerasTensor":
        return layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, gamma_initializer=gamma)(outputs)

    def conv(outputs: "keras.KerasTensor", width: int, size: int = 3, stride: int = 1) -> "keras.KerasTensor":
        # With stride 2, PyTorch pads the other two sides: its mirror image
        layer = layers.Conv2D(width, size, stride, "same", use_bias=False, kernel_initializer=he_normal())
        return layer(outputs)

    def grouped_conv(outputs: "keras.KerasTensor", width: int, stride: int) -> "keras.KerasTensor":
        """A sum of depthwise convolutions, because TensorFlow has no gradient for groups on a CPU.

        A group takes every so many channels instead of neighbors, which is the same up to the order of the filters.
        """
        inputs_of_group, remainder = divmod(outputs.shape[-1], channel_groups)
        if remainder or width % channel_groups:
            raise ValueError(f"{channel_groups} groups do not divide {outputs.shape[-1]} and {width} channels")

        def part(channels: "keras.KerasTensor") -> "keras.KerasTensor":
            # Keras counts all channels as inputs of a filter; it has one of each part
            initial = keras.initializers.VarianceScaling(
                2 * channel_groups / inputs_of_group, "fan_in", "untruncated_normal"
            )
            layer = layers.DepthwiseConv2D(
                3,
                stride,
                "same",
                depth_multiplier=width // channel_groups,
                use_bias=False,
                depthwise_initializer=initial,
            )
            return layer(channels)

        outputs_of_parts = [
            part(outputs[..., first : first + channel_groups]) for first in range(0, outputs.shape[-1], channel_groups)
        ]
        return layers.add(outputs_of_parts) if len(outputs_of_parts) > 1 else outputs_of_parts[0]

    def excite(outputs: "keras.KerasTensor") -> "keras.KerasTensor":
        weights = layers.GlobalAveragePooling2D(keepdims=True)(outputs)
        width = outputs.shape[-1]
        weights = layers.Conv2D(width // reduction, 1, activation="mish", kernel_initializer=he_normal())(weights)
        weights = layers.Conv2D(width, 1, activation="sigmoid", kernel_initializer=he_normal())(weights)
        return layers.multiply([outputs, weights])

    def mish(outputs: "keras.KerasTensor") -> "keras.KerasTensor":
        return layers.Activation("mish")(outputs)

    if len(inner_widths) != len(widths):
        raise ValueError(f"widths has {len(widths)} blocks, inner_widths has {len(inner_widths)}")
    inputs = outputs = keras.Input(input_shape)
    for number, width in enumerate(STEM):
        outputs = mish(norm(conv(outputs, width, stride=1 if number else 2)))
    outputs = layers.MaxPooling2D(3, 2, padding="same")(outputs)
    for number, (width, inner_width) in enumerate(zip(widths, inner_widths, strict=True)):
        stride = 2 if number else 1
        shortcut = layers.AveragePooling2D(2, padding="same")(outputs) if stride == 2 else outputs
        if shortcut.shape[-1] != width:
            shortcut = norm(conv(shortcut, width, 1))
        outputs = mish(norm(grouped_conv(outputs, inner_width, stride)))
        outputs = excite(norm(conv(outputs, width), gamma="zeros"))  # a block starts as its shortcut
        outputs = mish(layers.add([outputs, shortcut]))
    outputs = layers.GlobalAveragePooling2D(dtype="float32")(outputs)
    outputs = layers.Dense(num_classes, activation="softmax", dtype="float32")(outputs)
    return keras.Model(inputs, outputs)
