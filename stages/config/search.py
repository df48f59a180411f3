"""The section `search` of params.yaml: the values that `make search` tries for each key of a model."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from stages.config.messages import choices, explain
from stages.config.models import ModelConfig
from stages.config.types import Config, sort_keys
from stages.runtime.errors import UserError

Key = Annotated[str, StringConstraints(pattern=r"^[a-z]\w*(\.\w+)*$")]  # with dots: optimizer.name, augment.0.factor
Value = bool | int | float | str | None


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
