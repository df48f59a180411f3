"""README.md: what is written by hand, and below it the tables of results/*.json."""

from collections.abc import Iterable
from typing import Any

from benchmarks.common import FOLDER, load

MARK = "<!-- What follows is written by `make bench`. -->"


def write(topics: Iterable[str]) -> None:
    """Put the tables of those topics that have results below the mark."""
    path = FOLDER / "README.md"
    kept = path.read_text().split(MARK)[0]
    found = {topic: content for topic in topics if (content := load(topic))}
    path.write_text(kept + MARK + "\n\n" + "\n".join(section(topic, content) for topic, content in found.items()))


def section(topic: str, content: dict[str, Any]) -> str:
    """The Markdown of one topic: on what, the goals, the tables."""
    machine = content["machine"]
    native = ", ".join(machine["native_bfloat16"]) or "no native bfloat16"
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    goals = [
        [goal["what"], goal["wanted"], f"{goal['measured']:.3g}", "yes" if goal["met"] else "**no**"]
        for goal in content["goals"]
    ]
    parts = [
        f"## {topic.capitalize()}",
        f"`{content['command']}` on {machine['cores']} cores of {machine['processor']} ({native}), "
        f"{machine['memory_gib']} GiB, {machine['system']}, with a load of {machine['load_before']} before; "
        f"Python {machine['python']}, {packages}.",
        *([_table(["Goal", "Wanted", "Measured", "Met"], goals)] if goals else []),
        *content["remarks"],
        *(_section(table) for table in content["tables"] if table["rows"]),
    ]
    return "\n\n".join(parts) + "\n"


def _section(table: dict[str, Any]) -> str:
    sides = list(dict.fromkeys(side for row in table["rows"] for side in row["values"]))
    notes = list(dict.fromkeys(note for row in table["rows"] for note in row["notes"]))
    head = ["", *sides, *(f"{side}: ratio" for side in sides[1:]), *notes]
    lines = []
    for row in table["rows"]:
        medians = [_number(row["medians"].get(side)) for side in sides]
        ratios = [_number(row["ratios"].get(side), "×") for side in sides[1:]]
        name = row["name"] if " " in row["name"] else f"`{row['name']}`"
        lines.append([name, *medians, *ratios, *(row["notes"].get(note, "") for note in notes)])
    return f"### {table['title']}, {table['unit']}\n\n" + _table(head, lines)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
