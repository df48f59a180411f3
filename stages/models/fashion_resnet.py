"""The residual network for Fashion-MNIST of fast.ai's course, part 2 of 2022 (miniai, lessons 18 and 19)."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stages.config.types import Width

if TYPE_CHECKING:
    import keras

EPSILON = 1.001e-5  # PyTorch's 1e-5 in float32 is less than cuDNN takes


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    mean: float,
    std: Annotated[float, Field(gt=0)],
    widths: Annotated[list[Width], Field(min_length=1)],
) -> "keras.Model":
    """A residual block for each of `widths`, the first with 5×5 convolutions, the others with stride 2; softmax.

    Args:
        input_shape: (height, width, channels).
        num_classes: width of the softmax layer.
        mean: mean of the pixels from 0 to 1.
        std: standard deviation of these pixels.
        widths: width of each block.
    """
    import keras
    from keras import layers

    def conv(width: int, size: int, stride: int = 1) -> "keras.layers.Layer":
        # He's initialization for a leaky ReLU. With stride 2, PyTorch pads the other two sides: its mirror image
        initial = keras.initializers.VarianceScaling(2 / (1 + 0.1**2), "fan_in", "untruncated_normal")
        return layers.Conv2D(width, size, stride, padding="same", kernel_initializer=initial)

    def norm() -> "keras.layers.Layer":
        return layers.BatchNormalization(momentum=0.9, epsilon=EPSILON)

    def activation(outputs: "keras.KerasTensor") -> "keras.KerasTensor":
        return layers.LeakyReLU(0.1)(outputs) - 0.4  # the mean is then about 0

    inputs = keras.Input(input_shape)
    outputs = layers.Rescaling(1 / std, -mean / std, dtype="float32")(inputs)
    for number, width in enumerate(widths):
        size, stride = (3, 2) if number else (5, 1)
        shortcut = layers.AveragePooling2D(2, padding="same")(outputs) if stride == 2 else outputs
        combine = layers.add
        if shortcut.shape[-1] != width:
            # The same as an addition, because the weights are random and symmetric. TensorFlow's graph optimizer fuses
            # a convolution, its bias, an addition and LeakyReLU in bfloat16, and then takes 0.2 as the slope
            shortcut, combine = conv(width, 1)(shortcut), layers.subtract
        outputs = activation(norm()(conv(width, size)(outputs)))
        outputs = norm()(conv(width, size, stride)(outputs))
        outputs = activation(combine([outputs, shortcut]))
    outputs = layers.Flatten()(outputs)
    head = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # PyTorch's own
    outputs = layers.Dense(num_classes, use_bias=False, kernel_initializer=head, dtype="float32")(outputs)
    outputs = layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, dtype="float32")(outputs)
    outputs = layers.Softmax(dtype="float32")(outputs)
    return keras.Model(inputs, outputs)
