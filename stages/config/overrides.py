"""Merge the overrides of the section `train` into the configuration of a model."""

from stages.config.models import ModelConfig, TrainConfig


def merge(model: ModelConfig, train: TrainConfig) -> ModelConfig:
    """`model` with every value of `train` that is not null; the validation fraction is not a model's."""
    overrides = train.model_dump(exclude={"validation_fraction"}, exclude_none=True)
    return model.model_copy(update=overrides)
