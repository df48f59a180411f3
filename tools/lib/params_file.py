"""Add entries to params.yaml and change nothing else in it: no comment, no space, no quote."""

import io
import textwrap
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.config import params
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write

WIDTH = 120  # of a comment
AFTER = "datasets"  # a section that does not exist yet is written after this one


class NewEntry:
    """An entry for a section of params.yaml, with a comment above it."""

    def __init__(self, section: str, name: str, values: dict[str, Any], comment: str = "") -> None:
        self.section, self.name, self.values, self.comment = section, name, values, comment

    def render(self, indent: int = 2) -> str:
        """The lines of the entry, indented by so many spaces."""
        buffer = io.StringIO()
        yaml = YAML()
        yaml.default_flow_style, yaml.width = False, 1 << 20  # as `dvc exp run -S` writes it
        yaml.dump({self.name: self.values}, buffer)
        comment = "".join(f"# {line}\n" for line in textwrap.wrap(self.comment, WIDTH - 4))
        return "".join(f"{' ' * indent}{line}" for line in (comment + buffer.getvalue()).splitlines(keepends=True))


def add_entries(entries: list[NewEntry], headings: dict[str, str], path: Path = paths.PARAMS) -> None:
    """Write entries at the ends of their sections, if params.yaml is valid with them.

    Args:
        entries: new entries; those of a section keep this order.
        headings: comments for sections that may not exist yet.
        path: params.yaml.

    Raises:
        UserError: an entry exists, or params.yaml would not be valid with it. The file is then as it was.
    """
    text = path.read_text(encoding="utf-8")
    expected: Any = YAML(typ="safe", pure=True).load(text)
    for entry in entries:
        section = expected[entry.section] = expected.get(entry.section) or {}
        if entry.name in section:
            raise UserError(f"{path}: {entry.section}.{entry.name} is there already; remove it, or choose another name")
        section[entry.name] = entry.values
        text = _insert(text, entry, headings.get(entry.section, ""), path)
    found = YAML(typ="safe", pure=True).load(text)
    if found != expected:
        raise UserError(f"{path}: it is written in a way that cannot be added to; add the entries by hand:\n{text}")
    params.check(found, path)
    rewrite(path, text)


def rewrite(path: Path, text: str) -> None:
    """Replace the content of a text file. Its lines end as before: with two characters if Git checked it out so."""
    newline = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
    with atomic_write(path) as part:
        part.write_text(text, newline=newline, encoding="utf-8")


def _insert(text: str, entry: NewEntry, heading: str, path: Path) -> str:
    """`text` with an entry after the last line of its section."""
    lines = text.splitlines(keepends=True)
    values = YAML().load(text)
    first = next(iter(values.get(entry.section) or ()), None)
    content = entry.render(2 if first is None else values[entry.section].lc.key(first)[1])
    section = entry.section if entry.section in values else AFTER
    start = values.lc.key(section)[0]
    following = [line for key in values if (line := values.lc.key(key)[0]) > start]
    end = min(following, default=len(lines))
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):  # they belong to what follows
        end -= 1
    if section != entry.section:
        content = "".join(f"\n{'# ' + heading if heading else ''}\n{entry.section}:\n{content}")
    elif values[section] is not None and values[section].fa.flow_style() is not False and not values[section]:
        lines[start] = lines[start].replace(" {}", "", 1)
    elif values[section] is not None and values[section].fa.flow_style():
        raise UserError(f"{path}: {section}: write it with a line for each entry, without {{}}")
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    return "".join([*lines[:end], content, *lines[end:]])
