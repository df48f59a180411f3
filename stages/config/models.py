"""The sections `models` and `train` of params.yaml: how each model is built and trained."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from stages.config.types import Config, Name, NotNegative, Positive, Rate

ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Epochs = Annotated[int, Field(gt=0, le=100_000)]
ImageSize = Annotated[int, Field(ge=8, le=4096)]
Glob = Annotated[str, Field(min_length=1)]  # of paths of variables: "whitening/kernel", "*/beta"


Distribution = Literal["mirrored"]  # each batch split over the GPUs of the machine


class PartConfig(Config):
    """A part that is found by its name: a module, and the keyword arguments of its `build` as further keys."""

    model_config = ConfigDict(extra="allow")  # checked against `build` by stages.config.plugins

    name: Name

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the module's `build`."""
        return dict(self.model_extra or {})


def _check_is_list(value: Any) -> Any:
    """A key without a value, such as `augment:`, is an empty list."""
    if not isinstance(value, list | None):
        raise ValueError("it should be a list of modules and their options, such as [{name: rotation, factor: 0.1}]")
    return value or []


Parts = Annotated[list[PartConfig], BeforeValidator(_check_is_list)]
Groups = Annotated[dict[Name, "GroupConfig"], BeforeValidator(lambda value: {} if value is None else value)]


class GroupConfig(Config):
    """An entry of `groups`: variables that are trained in their own way. Null: as the rest of the model."""

    variables: Glob
    optimizer: PartConfig | None = None
    learning_rate: Rate | None = None
    schedule: PartConfig | None = None


class ProgressiveConfig(Config):
    """An item of `progressive`: so many epochs at a smaller image size."""

    epochs: Epochs
    image_size: ImageSize


class AbstainConfig(Config):
    """A model's `abstain`: when its answer is "not sure" or "none of these". Null: never."""

    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None  # of the sure answers, on the validation split
    none_of_these: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of validation images that it falsely gets


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
    synthetic: dict[str, Any] = Field(default_factory=dict)  # other values of this entry, for generated images
    image_size: ImageSize | None = None  # None: the size of the dataset's images
    augment: Parts = Field(default_factory=list)  # in the order in which they are applied
    initialize: Parts = Field(default_factory=list)  # weights that depend on the training images
    groups: Groups = Field(default_factory=dict)
    frozen: list[Glob] = Field(default_factory=list)  # variables that are not trained
    class_weight: Literal["balanced"] | None = None  # balanced: each class has the same weight in the training loss
    drop_last: bool = False  # leave out the smaller batch at the end of an epoch
    progressive: list[ProgressiveConfig] = Field(default_factory=list)  # the first epochs, at smaller images
    averaging: PartConfig | None = None  # of the weights during training
    test_time: PartConfig | None = None  # test-time augmentation
    abstain: AbstainConfig | None = None  # None: the model always answers
    distribution: Distribution | None = None  # None: one device
    patience: Positive | None = None  # epochs without a lower validation loss before training stops
    min_improvement: NotNegative = 0.0  # decrease of the validation loss from which an epoch counts for `patience`
    restore_best: bool = False  # keep the weights of the last epoch that counted for `patience`

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the architecture's `build`."""
        return dict(self.model_extra or {})


class TrainConfig(Config):
    """The section `train`: the validation split of datasets without one, and values that override every model's own."""

    # 0: all images train, without early stopping, a restored epoch or a temperature, once validation has chosen
    validation_fraction: Annotated[float, Field(ge=0, lt=1)]
    epochs: Epochs | None = None
    batch_size: Positive | None = None
    learning_rate: Rate | None = None
    compute_dtype: ComputeDtype | None = None
    distribution: Distribution | None = None
