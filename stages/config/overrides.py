"""Merge the overrides of `synthetic` and of the section `train` into the configuration of a model."""

from typing import Any

from stages.config.models import ModelConfig, TrainConfig
from stages.config.sections import change


def merge(model: ModelConfig, train: TrainConfig, synthetic: bool) -> ModelConfig:
    """Resolve a model's configuration: on generated data its `synthetic` values, then those of `train`.

    A learning rate of `train` scales the learning rates of all groups by the same factor as the model's own. The
    validation fraction is not a model's.
    """
    if synthetic and model.synthetic:
        model = change(model, model.synthetic, "params.yaml: synthetic")
    overrides: dict[str, Any] = {
        key: value for key, value in train if key != "validation_fraction" and value is not None
    }
    if not train.validation_fraction:  # no images that could stop the training, or choose an epoch or a threshold
        overrides |= {"patience": None, "restore_best": False, "abstain": None}
    if train.learning_rate:
        factor = train.learning_rate / model.learning_rate
        overrides["groups"] = {
            name: group.model_copy(update={"learning_rate": group.learning_rate and group.learning_rate * factor})
            for name, group in model.groups.items()
        }
    return model.model_copy(update=overrides | {"synthetic": {}})
