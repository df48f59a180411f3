"""One-line messages for values of params.yaml that are not valid."""

import difflib
import reprlib
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stages.config.types import NAME_PATTERN
from stages.runtime.errors import UserError, mask_urls

Entry = TypeVar("Entry")


def lookup(section: dict[str, Entry], name: str, what: str) -> Entry:
    """`section[name]`, or a `UserError` that lists the names that exist."""
    if name not in section:
        raise UserError(f"params.yaml: {what}: there is no {name!r}; {choices(name, section)}")
    return section[name]


def choices(name: str, known: Any) -> str:
    """The names that are allowed, and the one that was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "allowed: " + ", ".join(map(_printable, known))


def explain(error: ValidationError, values: Any, schema: type[BaseModel], prefix: str = "") -> str:
    """The most useful of pydantic's errors as one line: key, value, what is allowed.

    Args:
        error: what pydantic raised.
        values: what it was given.
        schema: what it was checked against.
        prefix: the key under which the values stand.
    """
    # A misspelt key is two errors, one missing and one unknown: report the unknown one, which the user wrote. Of a
    # union, report the error of the type that the value has.
    ranks = {"extra_forbidden": 0, "list_type": 2, "dict_type": 2}
    first = min(error.errors(), key=lambda found: ranks.get(found["type"], 1))
    parts = _place(values, first["loc"])
    if first["type"] == "missing":
        parts.append(str(first["loc"][-1]))
    key = ".".join([*filter(None, [prefix]), *map(_printable, parts)]) or "the file"
    if first["type"] == "missing":
        return f"{key}: missing; add it"
    if first["type"] == "extra_forbidden":
        known = _keys_beside(schema, parts)
        allowed = choices(parts[-1], known) if known else "it takes no options"
        return f"{key}: unknown key with value {_short(first['input'])}; {allowed}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "dict_type"):
        message = "it should be a mapping, such as {name: ...}" if parts[-1:] != ["classes"] else message
    elif first["type"] == "string_pattern_mismatch" and first["ctx"]["pattern"] == NAME_PATTERN:
        message = "it should be a name of lower-case letters, digits and underscores"
    return f"{key}: {_short(first['input'])}: {message[0].lower()}{message[1:]}"


def _place(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys and indices that lead to an error, without pydantic's own entries: types of a union, "[key]"."""
    parts = []
    for part in map(str, location):
        inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
        found = [value for key, value in inner if str(key) == part]
        if found:
            parts.append(part)
            values = found[0]
    return parts


def _printable(text: str) -> str:
    """On one line, and visible."""
    return text if text.isprintable() and text.strip() else ascii(text)


def _short(value: Any) -> str:
    """A value for a message: short, however large and deep it is, and without the secrets of a URL."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 10_000  # mask first, then cut
    shortened.maxlevel = 2
    try:
        text = mask_urls(shortened.repr(value))
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."


def _keys_beside(schema: Any, parts: list[str]) -> list[str]:
    """The keys that the schema allows where `parts` ends."""
    for part in parts[:-1]:
        is_section = isinstance(schema, type) and issubclass(schema, BaseModel)
        schema = schema.model_fields[part].annotation if is_section else get_args(schema)[-1]
        while get_args(schema) and get_origin(schema) not in (dict, list):
            schema = get_args(schema)[0]  # of Annotated, or of a section that may be null
    return list(schema.model_fields)
