"""Markdown tables. Reports and tools write every table with this module."""

from collections.abc import Iterable, Sequence
from typing import Any

RULES = {"": "---", "l": ":---", "r": "---:", "c": ":---:"}


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], align: Sequence[str] | None = None) -> str:
    """A Markdown table without a newline at its end.

    Args:
        head: the column headings.
        rows: the cells of each row; any value, as text. A pipe is escaped, a line break becomes a space.
        align: one of l, r, c or "" for each column, such as "lrr". None: the reader's default.
    """
    rules = [RULES[side] for side in (align or [""] * len(head))]
    return "\n".join(map(_line, [head, rules, *rows]))


def _line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(" ".join(str(cell).split("\n")).replace("|", "\\|") for cell in cells) + " |"
