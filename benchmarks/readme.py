"""benchmarks/README.md: text written by hand, and below it the tables of results/*.json."""

from collections.abc import Iterable
from typing import Any

from benchmarks.common import FOLDER, load
from stages.reporting.markdown import table as markdown_table

# What these say is in a document; here are only the heading and the links
ELSEWHERE = {
    "profile": "performance.md",
    "scaling": "cluster.md",
    "audit": "audit.md",
    "transfer": "transfer.md",
}
PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "torch")  # whose versions are shown; the JSON file has all
MARK = "<!-- `make bench` writes everything below this line. -->"


def write(names: Iterable[str]) -> None:
    """Write the tables of those benchmarks that have results below the mark."""
    path = FOLDER / "README.md"
    by_hand = path.read_text(encoding="utf-8").split(MARK)[0]
    sections = []
    for name in names:
        if document := ELSEWHERE.get(name):
            file = f"results/{name}.json"
            sections.append(f"## {name.capitalize()}\n\n[{document}](../docs/{document}), [{file}]({file})\n")
        elif found := load(name):
            sections.append(section(name, found))
    path.write_text(by_hand + MARK + "\n\n" + "\n".join(sections), encoding="utf-8")


def section(name: str, content: dict[str, Any]) -> str:
    """The Markdown of one benchmark: machine and versions, targets, tables."""
    machine = content["machine"]
    native = ", ".join(machine["native_bfloat16"]) or "no native bfloat16"
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if name in PACKAGES)
    targets = [
        [target["what"], target["target"], f"{target['measured']:.3g}", "yes" if target["met"] else "**no**"]
        for target in content["targets"]
    ]
    parts = [
        f"## {name.capitalize()}",
        f"{machine['cores']} cores of {machine['processor']} ({native}), load {machine['load_before']}; {packages}.",
        *([_table(["Measurement", "Target", "Measured", "Met"], targets)] if targets else []),
        *content["remarks"],
        *(_section(table) for table in content["tables"] if table["rows"]),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _section(table: dict[str, Any]) -> str:
    contenders = list(dict.fromkeys(name for row in table["rows"] for name in row["values"]))
    notes = list(dict.fromkeys(note for row in table["rows"] for note in row["notes"]))
    head = ["", *contenders, *(f"{name}: ratio" for name in contenders[1:]), *notes]
    lines = []
    for row in table["rows"]:
        medians = [_number(row["medians"].get(name)) for name in contenders]
        ratios = [_number(row["ratios"].get(name), "×") for name in contenders[1:]]
        title = row["name"] if " " in row["name"] else f"`{row['name']}`"
        lines.append([title, *medians, *ratios, *(str(row["notes"].get(note, "")) for note in notes)])
    return f"### {table['title']}, {table['unit']}\n\n" + _table(head, lines).strip("\n")


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def _table(head: list[str], rows: list[list[str]]) -> str:
    return markdown_table(head, rows, ["", *["r"] * (len(head) - 1)])
