"""The section `gates` of params.yaml: limits that `make gate` enforces."""

from pydantic import model_validator

from stages.config.types import Config, Fraction


class GateConfig(Config):
    """An entry of `gates`: the lowest accuracy of a model, and the largest drop against another revision."""

    min_accuracy: Fraction | None = None
    max_drop: Fraction | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> "GateConfig":
        if self.min_accuracy is None and self.max_drop is None:
            raise ValueError("it should have min_accuracy, max_drop or both")
        return self
