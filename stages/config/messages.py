"""One-line messages for values of params.yaml that are not valid."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from stages.runtime.errors import UserError, mask_urls, printable

Entry = TypeVar("Entry")


def lookup(section: dict[str, Entry], name: str, what: str) -> Entry:
    """`section[name]`, or a `UserError` that lists the names that exist."""
    if not name:
        raise UserError(f"no name is given; name one of {what} in params.yaml: {', '.join(map(printable, section))}")
    if name not in section:
        raise UserError(f"params.yaml: {what}: there is no {name!r}; {choices(name, section)}")
    return section[name]


def choices(name: str, known: Iterable[str]) -> str:
    """The names that are allowed, and the one that was probably meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "allowed: " + ", ".join(map(printable, known))


def explain(error: ValidationError, values: Any, prefix: str = "", known: Iterable[str] = ()) -> str:
    """The most useful of pydantic's errors as one line: key, value, what is allowed.

    Args:
        error: what pydantic raised for `values`.
        values: what it was given.
        prefix: the key under which the values stand, or the file and the key.
        known: keys that are right, and not a missing one that is misspelt.
    """
    # Of a union, report the error of the type that the value has.
    first = min(error.errors(), key=_is_of_another_type)
    parts = [prefix] if prefix else []
    for part in map(str, first["loc"]):  # without pydantic's own entries: types of a union, "[key]"
        inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
        for key, value in inner:
            if str(key) == part:
                parts.append(printable(part))
                values = value
                break
    if first["type"] == "missing":
        key = str(first["loc"][-1])
        others = [str(one) for one in values if one not in known] if isinstance(values, dict) else []
        misspelt = difflib.get_close_matches(key, others, n=1, cutoff=0.8)
        what = f"rename {printable(misspelt[0])!r}, or add it" if misspelt else "add it"
        return ".".join([*parts, key]) + f": missing; {what}"
    if first["type"] == "unknown_key":
        return ".".join([*parts, printable(first["ctx"]["key"])]) + ": " + first["msg"]
    message = first["msg"].removeprefix("Value error, ").replace(" after validation", "")
    if first["type"] in ("model_type", "dict_type") and parts[-1:] != ["classes"]:
        key = "name" if first.get("ctx", {}).get("class_name") == "PartConfig" else "key"
        message = f"it should be a mapping, such as {{{key}: ...}}"
    if first["type"] == "string_type" and isinstance(first["input"], int | float):
        message += "; put it in quotes"
    return f"{'.'.join(parts) or 'the file'}: {short(first['input'])}: {message[0].lower()}{message[1:]}"


def _is_of_another_type(error: Any) -> bool:
    """Whether one of pydantic's errors says that a value has not the type of this part of a union."""
    wants_text = error["type"] == "literal_error" and isinstance(error["input"], dict)
    return wants_text or error["type"] in ("list_type", "dict_type")


def short(value: Any) -> str:
    """A value for a message: short, however large and deep it is, and without the secrets of a URL."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 10_000  # mask first, then cut
    shortened.maxlevel = 2
    try:
        text = mask_urls(shortened.repr(value))
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."
