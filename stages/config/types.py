"""What the sections of params.yaml have in common: their base class and the types of their values."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Config(BaseModel):
    """A mapping of params.yaml: no unknown keys, no silent conversions.

    Defaults are neutral: None, false, zero or empty. Every other value stands in params.yaml, where DVC tracks it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$")]
