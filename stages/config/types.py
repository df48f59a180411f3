"""What the sections of params.yaml have in common: their base class and the types of their values."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from stages.config.messages import choices, short


class Config(BaseModel):
    """A mapping of params.yaml: no unknown keys, no silent conversions.

    Defaults are neutral: None, false, zero or empty. Every other value stands in params.yaml, where DVC tracks it. Keys
    are sorted: DVC does not see their order, so it must not change a result.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, values: Any) -> Any:
        """Sort the keys, and report an unknown one, which pydantic would report as a missing one if it is misspelt."""
        known = list(cls.model_fields)
        unknown = [key for key in values if key not in known] if isinstance(values, dict) else []
        if unknown and cls.model_config.get("extra") == "forbid":
            key = str(unknown[0])
            allowed = choices(key, known) if known else "it takes no options"
            message = f"unknown key with value {short(values[unknown[0]])}; {allowed}"
            raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": key})
        if not isinstance(values, dict):
            return values
        return {key: sort_keys(value) for key, value in sort_keys(values).items()}


def sort_keys(value: Any) -> Any:
    """A sorted mapping; other values, and mappings with keys that are invalid anyway, as they are."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return dict(sorted(value.items()))
    return value


def matching(pattern: str, wanted: str) -> AfterValidator:
    """Reject text that does not match, with a message that says what is wanted instead of the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(wanted)
        return text

    return AfterValidator(check)


Positive = Annotated[int, Field(gt=0, lt=2**31)]
Width = Annotated[int, Field(gt=0, lt=2**16)]  # channels or units of a layer
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[
    str, matching(r"[a-z][a-z0-9_]*", "a name is of lower-case letters, digits and _, and begins with a letter")
]
FileName = Annotated[
    str,
    matching(r"\w[\w.+-]*", "a file name is of letters, digits, ., +, - and _, and begins with one of the first two"),
]
