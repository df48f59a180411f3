"""Merge the overrides of `synthetic` and of the section `train` into the configuration of a model."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stages.config.messages import choices, explain
from stages.config.models import ModelConfig, TrainConfig
from stages.config.sections import Value
from stages.runtime.errors import UserError


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


def change(model: ModelConfig, values: Mapping[str, Value], what: str) -> ModelConfig:
    """A copy of a model's configuration with other values at dotted keys, not yet checked against its modules.

    Raises:
        UserError: it starts with `what`: a key does not exist, or a value has the wrong type.
    """
    entry = model.model_dump(exclude_unset=True)
    for key, value in values.items():
        *parents, last = key.split(".")
        section: Any = entry
        for number, parent in enumerate(parents):
            known = {str(index): item for index, item in enumerate(section)} if isinstance(section, list) else section
            section = known.get(parent)
            is_last = number == len(parents) - 1
            if not isinstance(section, dict if is_last else dict | list):
                place = ".".join(parents[: number + 1])
                raise UserError(f"{what}: the model has no {place!r} with keys; {choices(parent, known)}")
        section[last] = value
    try:
        return ModelConfig.model_validate(entry)
    except ValidationError as error:
        raise UserError(f"{what}: {explain(error, entry)}") from None
