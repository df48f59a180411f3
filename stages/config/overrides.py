"""Merge the overrides of the section `train` into the configuration of a model."""

from typing import Any

from stages.config.models import ModelConfig, TrainConfig


def merge(model: ModelConfig, train: TrainConfig, synthetic: bool) -> ModelConfig:
    """`model` with every value of `train` that is not null; the validation fraction is not a model's.

    A learning rate of `train` scales the learning rates of all groups by the same factor as the model's own. On
    synthetic data the model's own epochs are at most `synthetic_epochs`.
    """
    overrides: dict[str, Any] = {}
    if synthetic and model.synthetic_epochs:
        overrides["epochs"] = min(model.epochs, model.synthetic_epochs)
    overrides |= {key: value for key, value in train if key != "validation_fraction" and value is not None}
    if train.learning_rate:
        factor = train.learning_rate / model.learning_rate
        overrides["groups"] = {
            name: group.model_copy(update={"learning_rate": group.learning_rate and group.learning_rate * factor})
            for name, group in model.groups.items()
        }
    return model.model_copy(update=overrides)
