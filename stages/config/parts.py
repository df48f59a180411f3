"""Parts that are found by name: modules of a package, and the options that their `build` accepts."""

import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from stages.config.messages import choices, explain
from stages.config.types import Config
from stages.runtime.errors import UserError

STAGES = Path(__file__).parents[1]


def load_part(package: str, name: str) -> Any:
    """The module `name` of a package of stages/, such as `models` or `training.optimizers`."""
    return importlib.import_module(f"stages.{package}.{name}")


def check_part(key: str, package: str, name: str, others: Iterable[str] = ()) -> None:
    """Raise a `UserError` that starts with `key` if neither a package of stages/ nor `others` have a `name`."""
    known = sorted({*others, *(file.stem for file in STAGES.joinpath(*package.split(".")).glob("[a-z]*.py"))})
    if name not in known:
        raise UserError(f"{key}: there is no {name!r}; {choices(name, known)}")


def check_options(key: str, package: str, name: str, options: dict[str, Any]) -> None:
    """Check options against the keyword-only parameters of `build` in a module that is found by its name.

    The module is imported: its top level must not import TensorFlow.
    """
    fields: dict[str, Any] = {
        parameter.name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for parameter in inspect.signature(load_part(package, name).build).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    try:
        create_model(name, __base__=Config, **fields).model_validate(options)
    except ValidationError as error:
        path, _, prefix = key.partition(": ")
        raise UserError(f"{path}: {explain(error, options, prefix)}") from None
