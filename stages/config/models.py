"""The sections `models` and `train` of params.yaml: how each model is built and trained."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from stages.config.types import Config, Fraction, Name, Positive, Rate

ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Distribution = Literal["mirrored"]
Epochs = Annotated[int, Field(gt=0, le=100_000)]


class PartConfig(Config):
    """A part that is found by its name: a module, and the keyword arguments of its `build` as further keys."""

    model_config = ConfigDict(extra="allow")  # checked against `build` by stages.config.parts

    name: Name

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the module's `build`."""
        return dict(self.model_extra or {})


class ModelConfig(Config):
    """An entry of `models`."""

    model_config = ConfigDict(extra="allow")  # the architecture's own keys, checked against its `build`

    dataset: Name
    architecture: Name
    optimizer: PartConfig
    schedule: PartConfig
    loss: PartConfig
    learning_rate: Rate
    batch_size: Positive
    epochs: Epochs
    compute_dtype: ComputeDtype
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None  # None: the size of the dataset's images
    augment: Annotated[dict[Name, dict[str, Any]], BeforeValidator(lambda found: found or {})] = Field(
        default_factory=dict
    )  # in the order in which they are applied
    distribution: Distribution | None = None  # None: one device
    patience: Positive | None = None  # epochs without a lower validation loss before training stops
    restore_best: bool = False  # keep the weights of the epoch with the lowest validation loss

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the architecture's `build`."""
        return dict(self.model_extra or {})


class TrainConfig(Config):
    """The section `train`: the validation split of all models, and values that override every model's own."""

    validation_fraction: Fraction
    epochs: Epochs | None = None
    batch_size: Positive | None = None
    learning_rate: Rate | None = None
    compute_dtype: ComputeDtype | None = None
    distribution: Distribution | None = None
