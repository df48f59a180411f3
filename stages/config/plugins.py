"""Parts that are found by name: modules of a package, and the options that their `build` accepts."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError, ValidationError, create_model

from stages.config.messages import choices, explain, short
from stages.config.models import PartConfig
from stages.config.types import Config
from stages.runtime.errors import UserError, printable

STAGES = Path(__file__).parents[1]


def load_plugin(package: str, name: str) -> Any:
    """The module `name` of a package of stages/, such as `models` or `training.optimizers`."""
    return importlib.import_module(f"stages.{package}.{name}")


def build_plugin(package: str, part: PartConfig, *arguments: Any) -> Any:
    """Call `build` of the module that a part names, with `arguments` and the part's options."""
    return load_plugin(package, part.name).build(*arguments, **part.options)


def check_plugin(key: str, package: str, name: str, others: Iterable[str] = ()) -> None:
    """Raise a `UserError` that starts with `key` if neither a package of stages/ nor `others` have a `name`."""
    folder = STAGES.joinpath(*package.split("."))
    if name not in others and not (name[:1].isalpha() and (folder / f"{name}.py").is_file()):
        known = sorted({*others, *(file.stem for file in folder.glob("[a-z]*.py"))})
        raise UserError(f"{key}: there is no {name!r}; {choices(name, known)}")


def check_options(key: str, package: str, name: str, options: dict[str, Any], reserved: Iterable[str] = ()) -> None:
    """Check options against the keyword-only parameters of `build` in a module that is found by its name.

    The module is imported: its top level must not import TensorFlow.

    Args:
        key: key of the options, at the start of messages.
        package: package of stages/ that has the module.
        name: name of the module.
        options: values from params.yaml.
        reserved: keys beside the options, which a misspelt one may mean and no option may have.

    Raises:
        UserError: an option is not valid, or `build` is missing or says not what its options are.
    """
    module = load_plugin(package, name)
    file = f"stages/{package.replace('.', '/')}/{name}.py"
    if not hasattr(module, "build"):
        raise UserError(f"{file}: it has no function `build`; docs/extending.md has an example")
    schema = _options_schema(module.build)
    known = [*schema.model_fields, *reserved]
    for option, value in options.items():
        if option in schema.model_fields:
            continue
        if option in inspect.signature(module.build).parameters:
            raise UserError(
                f"{key}.{option}: no option, as `build` in {file} has it before the `*`: the pipeline gives its value; "
                "remove it here, or move it behind the `*` there if it is an option"
            )
        meant = difflib.get_close_matches(option, known, n=1)
        if meant and meant[0] in reserved:
            raise UserError(
                f"{key}.{printable(option)}: unknown key with value {short(value)}; did you mean {meant[0]!r}?"
            )
    try:
        schema.model_validate(options)
    except ValidationError as error:
        raise UserError(explain(error, options, key, schema.model_fields)) from None
    except PydanticUserError as error:  # an annotation in quotes, or after `from __future__ import annotations`
        raise UserError(f"{file}: build: {str(error).splitlines()[0]}; import what the types of options name") from None


@functools.cache
def _options_schema(build: Callable[..., Any]) -> type[Config]:
    """The keyword-only parameters of `build` as a schema; building one takes milliseconds."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(build).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    return create_model("Options", __base__=Config, __module__=build.__module__, **fields)
