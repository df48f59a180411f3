"""Parts that are found by name: modules of a package, and the options that their `build` accepts."""

import difflib
import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError, ValidationError, create_model

from stages.config.messages import choices, explain, printable, short
from stages.config.models import PartConfig
from stages.config.types import Config
from stages.runtime.errors import UserError

STAGES = Path(__file__).parents[1]


def load_plugin(package: str, name: str) -> Any:
    """The module `name` of a package of stages/, such as `models` or `training.optimizers`."""
    return importlib.import_module(f"stages.{package}.{name}")


def build_plugin(package: str, part: PartConfig, *arguments: Any) -> Any:
    """Call `build` of the module that a part names, with `arguments` and the part's options."""
    return load_plugin(package, part.name).build(*arguments, **part.options)


def check_plugin(key: str, package: str, name: str, others: Iterable[str] = ()) -> None:
    """Raise a `UserError` that starts with `key` if neither a package of stages/ nor `others` have a `name`."""
    known = sorted({*others, *(file.stem for file in STAGES.joinpath(*package.split(".")).glob("[a-z]*.py"))})
    if name not in known:
        raise UserError(f"{key}: there is no {name!r}; {choices(name, known)}")


def check_options(key: str, package: str, name: str, options: dict[str, Any], reserved: Iterable[str] = ()) -> None:
    """Check options against the keyword-only parameters of `build` in a module that is found by its name.

    The module is imported: its top level must not import TensorFlow.

    Args:
        key: under which the options stand, for messages.
        package: of stages/.
        name: of the module.
        options: from params.yaml.
        reserved: keys beside the options, which a misspelt one may mean and no option may have.

    Raises:
        UserError: an option is not valid, or `build` is missing or says not what its options are.
    """
    module = load_plugin(package, name)
    file = f"stages/{package.replace('.', '/')}/{name}.py"
    if not hasattr(module, "build"):
        raise UserError(f"{file}: it has no function `build`; docs/extending.md has an example")
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(module.build).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.annotation is parameter.empty:
                raise UserError(
                    f"{file}: build: {parameter.name} has no type; write one, such as {parameter.name}: float"
                )
            if parameter.name in reserved:
                raise UserError(
                    f"{file}: build: {parameter.name} is a key of every model and never reaches `build`; rename it"
                )
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (parameter.annotation, default)
        elif parameter.name in options:
            raise UserError(
                f"{key}.{parameter.name}: no option, as `build` in {file} has it before the `*`: the pipeline "
                "gives its value; remove it here, or move it behind the `*` there if it is an option"
            )
    for option, value in options.items():
        meant = difflib.get_close_matches(option, [*fields, *reserved], n=1)
        if meant and meant[0] not in fields:
            raise UserError(
                f"{key}.{printable(option)}: unknown key with value {short(value)}; did you mean {meant[0]!r}?"
            )
    try:
        create_model(name, __base__=Config, __module__=module.__name__, **fields).model_validate(options)
    except ValidationError as error:
        raise UserError(explain(error, options, key, fields)) from None
    except PydanticUserError as error:  # an annotation in quotes, or after `from __future__ import annotations`
        raise UserError(f"{file}: build: {str(error).splitlines()[0]}; import what the types of options name") from None
