"""Text that a spreadsheet would run: names come from a user's files, and tables of them are opened in one."""

import re


def is_formula(text: str) -> bool:
    """Whether a cell with this text is a formula. A number, such as the label -1 or +1, is none."""
    return text.startswith(("=", "+", "-", "@")) and not re.fullmatch(r"[+-][0-9]+(\.[0-9]+)?", text)
