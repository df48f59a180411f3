"""What a search tries, and what its trials have in common."""

import hashlib
import json
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import optuna
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.config.flatten import flatten
from stages.config.models import ModelConfig
from stages.config.schema import Params
from stages.config.search import ParameterConfig, Value
from stages.runtime import paths
from stages.runtime.errors import UserError

Values = dict[str, Value]
Space = dict[str, ParameterConfig]


def space(params: Params, name: str) -> Space:
    """The section `search` for a model; without one, a tenth to ten times its learning rate and 1/2 to 2 batch sizes.

    Raises:
        UserError: the section `train` overrides a key, so that all trials would be the same.
    """
    model = params.models[name]
    batch_sizes = sorted({max(1, model.batch_size // 2), model.batch_size, 2 * model.batch_size})
    found = params.search.get(name) or {
        "learning_rate": ParameterConfig(low=model.learning_rate / 10, high=model.learning_rate * 10, log=True),
        "batch_size": ParameterConfig(choices=list(batch_sizes)),
    }
    for key in found:
        if getattr(params.train, key, None) is not None:
            raise UserError(f"params.yaml: train.{key}: it overrides the values that a search tries; set it to null")
    return found


def suggest(trial: optuna.Trial, space: Space) -> Values:
    """The values of a trial, as Optuna's sampler chooses them."""
    values: Values = {}
    for key, parameter in space.items():
        low, high = parameter.low, parameter.high
        if parameter.choices is not None:
            values[key] = trial.suggest_categorical(key, parameter.choices)
        elif isinstance(low, int) and isinstance(high, int):
            values[key] = trial.suggest_int(key, low, high, log=parameter.log)
        elif low is not None and high is not None:
            values[key] = trial.suggest_float(key, low, high, log=parameter.log)
    return values


def sampler(name: str, space: Space, startup: int) -> Callable[..., optuna.samplers.BaseSampler]:
    """What makes Optuna's sampler from a `seed`: `tpe`, whose first `startup` trials are random, or `grid`.

    Raises:
        UserError: there is no such sampler, or a key has no choices for a grid.
    """
    if name == "tpe":
        return partial(optuna.samplers.TPESampler, n_startup_trials=startup, multivariate=True)
    if name != "grid":
        raise UserError(f"SAMPLER: {name!r}: it should be tpe or grid")
    axes = {key: parameter.choices for key, parameter in space.items() if parameter.choices}
    if ranges := [key for key in space if key not in axes]:
        raise UserError(f"SAMPLER=grid: {', '.join(ranges)}: a range; list its values as `choices` in params.yaml")
    return partial(optuna.samplers.GridSampler, axes)


def current(model: ModelConfig, space: Space) -> Values | None:
    """The values of params.yaml if they lie in the space."""
    entry: Any = model.model_dump()
    values: Values = {}
    for key, parameter in space.items():
        value = reduce(lambda found, part: found.get(part) if isinstance(found, dict) else None, key.split("."), entry)
        if parameter.choices is not None:
            inside = any(value == choice and type(value) is type(choice) for choice in parameter.choices)
        else:
            inside = isinstance(value, int | float) and (parameter.low or 0) <= value <= (parameter.high or 0)
        if not inside:
            return None
        values[key] = value
    return values


def identity(name: str, sampler: str, space: Space) -> str:
    """Digest of all that decides the results of trials beside their values: params, and hashes of code and data.

    DVC says what these are. An earlier trial counts only if it has the same digest.

    Raises:
        UserError: dvc.yaml is not valid, or a file is missing.
    """
    facts: dict[str, Any] = {"sampler": sampler}
    try:
        stages = Repo().stage.collect(f"evaluate@{name}", with_deps=True)
        made = [out.fs_path for stage in stages for out in stage.outs]
        made.append(str(paths.PARAMS.absolute()))  # all of which is a dep of the stage that checks it
        for dep in (dep for stage in stages for dep in stage.deps):
            if isinstance(dep, ParamsDependency):
                for key, value in dep.read_params().items():
                    facts |= flatten(value, key)
            elif not any(Path(dep.fs_path).is_relative_to(path) for path in made):
                facts[dep.def_path] = dep.get_hash().value
    except (DvcException, OSError) as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    # Their values in params.yaml decide nothing
    facts |= {f"models.{name}.{key}": entry.model_dump() for key, entry in space.items()}
    return hashlib.md5(json.dumps(facts, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:7]
