"""The section `audits` of params.yaml: datasets to examine for duplicates, bad images and label errors."""

from typing import Annotated

from pydantic import Field

from stages.config.types import Config, Name, Share


class AuditConfig(Config):
    """An entry of `audits`, under the name of a dataset."""

    features: Name  # records that label errors are searched in: the dataset itself, or a feature set of it
    similarity: Share  # of two images, from which on they can be near duplicates
    ratio: Share  # of a near duplicate's distance to the distance of the tenth neighbor: at most this
    folds: Annotated[int, Field(ge=2, le=100)]  # of the cross-validation that label errors are found by
