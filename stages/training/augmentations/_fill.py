"""The color of erased and of missing pixels, an option of augmentations."""

from typing import Annotated

import numpy as np
from pydantic import Field

# From 0 to 255: of all channels, or red, green and blue
Fill = float | Annotated[list[float], Field(min_length=3, max_length=3)]


def channel_values(fill: Fill, channels: int) -> np.ndarray:
    """The value of each channel, (channels,) float32; of grayscale images the mean of red, green and blue."""
    values = np.atleast_1d(np.asarray(fill, np.float32))
    return np.broadcast_to(values if len(values) == channels else values.mean(), (channels,))
