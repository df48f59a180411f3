"""The smaller sections of params.yaml: features, not_in_pretraining, pretrained, gates, audits and search."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from stages.config.models import ComputeDtype
from stages.config.types import Config, Fraction, Name, Share, sort_keys

Key = Annotated[str, StringConstraints(pattern=r"^[a-z]\w*(\.\w+)*$")]  # with dots: optimizer.name, augment.0.factor
Value = bool | int | float | str | None
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


class PretrainedConfig(Config):
    """An entry of `pretrained`: a trained head, joined with the backbone whose features it takes.

    The head says which backbone and which images; they stand here as well, because dvc.yaml cannot look them up.
    """

    head: Name  # a model on features
    backbone: Name
    dataset: Name  # with the images
    image_size: Annotated[int, Field(ge=32, le=4096)] | None = None  # None: that of the features


class GateConfig(Config):
    """An entry of `gates`, limits that `make gate` enforces: a model's lowest accuracy, and its largest drop."""

    min_accuracy: Fraction | None = None
    max_drop: Fraction | None = None  # against another revision

    @model_validator(mode="after")
    def _is_not_empty(self) -> "GateConfig":
        if self.min_accuracy is None and self.max_drop is None:
            raise ValueError("it should have min_accuracy, max_drop or both")
        return self


class AuditConfig(Config):
    """An entry of `audits`, under the name of a dataset to examine."""

    features: Name  # records that label errors are searched in: the dataset itself, or a feature set of it
    similarity: Share  # of two images, from which on they can be near duplicates
    ratio: Share  # of a near duplicate's distance to the distance of the tenth neighbor: at most this
    folds: Annotated[int, Field(ge=2, le=100)]  # of the cross-validation that label errors are found by


class ParameterConfig(Config):
    """A key of a model's entry: a range of numbers, or a list of values."""

    low: int | float | None = None
    high: int | float | None = None  # included; if both ends are whole numbers, all values are
    log: bool = False  # each order of magnitude is as likely as any other
    choices: Annotated[list[Value], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> "ParameterConfig":
        given = [value is not None for value in (self.low, self.high, self.choices)]
        if given not in ([True, True, False], [False, False, True]) or (self.choices and self.log):
            raise ValueError("it should have low and high, or choices")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("low should be less than high")
        if self.log and (self.low or 0) <= 0:
            raise ValueError("a range with log should begin above zero")
        return self

    @property
    def ends(self) -> Iterable[Value]:
        """Values that are valid only if all are: the choices, or both ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)


SearchSpace = Annotated[dict[Key, ParameterConfig], Field(min_length=1), AfterValidator(sort_keys)]
