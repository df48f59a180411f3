"""Errors that a user can act upon, and what must not appear in their messages."""

import re

JOINERS = dict.fromkeys((0x200C, 0x200D))  # without a width: Persian, Sinhala and emoji write them inside of words


class UserError(Exception):
    """Something the user can fix. The message is one line: the file or key, what is wrong, what to do."""


def printable(text: str) -> str:
    """A name on one line: control characters, and bytes that are not text, as escapes; spaces alone in quotes."""
    escaped = "".join(
        each if each.isprintable() or ord(each) in JOINERS else each.encode("unicode_escape").decode() for each in text
    )
    return escaped if escaped.strip() else repr(escaped)


def mask_urls(text: str) -> str:
    """Remove from every URL in `text` what may be secret: user, password, query and fragment."""
    text = re.sub(r"(?<=://)[^/\s?#]*@", "", text)
    return re.sub(r"(\w://[^\s?#]*)[?#]\S*", r"\1", text)  # up to a space: a quote may be part of the secret
