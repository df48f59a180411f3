"""What a search tries: distributions for Optuna, a grid of the same size, and the values of params.yaml."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.models import ModelConfig
from stages.config.schema import Params
from stages.config.search import ParameterConfig, Value
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, Value]
Space = dict[str, ParameterConfig]


def space(params: Params, name: str) -> Space:
    """The section `search` for a model; without one, a tenth to ten times its learning rate and 1/2 to 2 batch sizes.

    Raises:
        UserError: the section `train` overrides a key, so that all trials would be the same.
    """
    found = params.search.get(name) or _default(params.models[name])
    for key in found:
        if getattr(params.train, key, None) is not None:
            raise UserError(f"params.yaml: train.{key}: it overrides the values that a search tries; set it to null")
    return found


def _default(model: ModelConfig) -> Space:
    batch_sizes = sorted({max(1, model.batch_size // 2), model.batch_size, 2 * model.batch_size})
    return {
        "learning_rate": ParameterConfig(low=model.learning_rate / 10, high=model.learning_rate * 10, log=True),
        "batch_size": ParameterConfig(choices=list(batch_sizes)),
    }


def distributions(space: Space) -> "dict[str, BaseDistribution]":
    """The space as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for key, parameter in space.items():
        low, high = parameter.low, parameter.high
        if parameter.choices is not None:
            found[key] = CategoricalDistribution(parameter.choices)
        elif isinstance(low, int) and isinstance(high, int):
            found[key] = IntDistribution(low, high, log=parameter.log)
        elif low is not None and high is not None:
            found[key] = FloatDistribution(low, high, log=parameter.log)
    return found


def grid(space: Space, trials: int) -> list[Values]:
    """The largest even grid of at most so many points: each axis in turn gets one more value while it fits."""
    levels = dict.fromkeys(space, 1)
    grew = True
    while grew:
        grew = False
        for key in sorted(levels, key=lambda key: levels[key]):
            if (
                len(_axis(space[key], levels[key] + 1)) > levels[key]
                and _size({**levels, key: levels[key] + 1}) <= trials
            ):
                levels[key] += 1
                grew = True
                break
    axes = [_axis(parameter, levels[key]) for key, parameter in space.items()]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*axes)]


def _size(levels: dict[str, int]) -> int:
    return int(np.prod(list(levels.values())))


def _axis(parameter: ParameterConfig, count: int) -> list[Value]:
    """Evenly spread values of a parameter, both ends included; fewer if it has no more. A single one is the middle."""
    if parameter.choices is not None:
        indices = (
            np.linspace(0, len(parameter.choices) - 1, count) if count > 1 else [(len(parameter.choices) - 1) // 2]
        )
        return [parameter.choices[index] for index in dict.fromkeys(round(index) for index in indices)]
    assert parameter.low is not None
    assert parameter.high is not None
    low, high = parameter.low, parameter.high
    positions = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    values = low * (high / low) ** positions if parameter.log else low + (high - low) * positions
    if isinstance(low, int) and isinstance(high, int):
        return list(dict.fromkeys(round(value) for value in values))
    return [float(np.clip(float(f"{value:.12g}"), low, high)) for value in values]


def current(model: ModelConfig, space: Space) -> Values | None:
    """The values of params.yaml if they lie in the space."""
    entry: Any = model.model_dump()
    values = {key: _get(entry, key) for key in space}
    for key, parameter in space.items():
        value = values[key]
        if parameter.choices is not None:
            inside = any(value == choice and type(value) is type(choice) for choice in parameter.choices)
        else:
            inside = isinstance(value, int | float) and (parameter.low or 0) <= value <= (parameter.high or 0)
        if not inside:
            return None
    return values


def _get(entry: Any, key: str) -> Any:
    for part in key.split("."):
        entry = entry.get(part) if isinstance(entry, dict) else None
    return entry
