"""The sections `features` and `not_in_pretraining` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stages.config.models import ComputeDtype
from stages.config.types import Config, Name


ImageSize = Annotated[int, Field(ge=32, le=4096)]


class FeaturesConfig(Config):
    """An entry of `features`: the output of a frozen backbone for every image of a dataset."""

    dataset: Name
    backbone: Name
    image_size: ImageSize
    compute_dtype: ComputeDtype
    pooling: Literal["avg"] | None = None  # avg: the mean of each map, (channels,) instead of (height, width, channels)
    synthetic: dict[Literal["image_size"], ImageSize] = Field(default_factory=dict)  # instead, for generated images


class NotInPretrainingConfig(Config):
    """An entry of `not_in_pretraining`: the test images of a dataset that a backbone cannot have been trained on."""

    files: Annotated[str, StringConstraints(min_length=1)]  # pattern of file names, as in a shell
    reason: Annotated[str, StringConstraints(min_length=1)]  # a sentence for the report
