"""The section `pretrained` of params.yaml: networks to fine-tune."""

from typing import Annotated

from pydantic import Field

from stages.config.types import Config, Name


class PretrainedConfig(Config):
    """An entry of `pretrained`: a trained head, joined with the backbone whose features it takes.

    The head says which backbone and which images; they stand here as well, because dvc.yaml cannot look them up.
    """

    head: Name  # a model on features
    backbone: Name
    dataset: Name  # with the images
    image_size: Annotated[int, Field(ge=32, le=4096)] | None = None  # None: that of the features
