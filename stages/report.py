"""All metrics → reports/README.md: one table of all models, one of the data."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages import params
from stages.console import UserError, run
from stages.files import replacing

REPORTS = Path("reports")


def report() -> None:
    """Write reports/README.md."""
    values = params.load()
    published = YAML(typ="safe", pure=True).load((REPORTS / "published.yaml").read_text())
    measured = {name: _json(REPORTS / "metrics" / f"{name}.json") for name in values.models}
    data = {name: _json(Path("data/counts") / f"{name}.json") for name in values.datasets}
    archives: dict[str, params.Dataset | params.Weights] = {**values.datasets, **values.weights}
    drawn = [name for name, entry in archives.items() if values.is_sample(entry)]
    sections = [
        "# Results\n\nWritten by `dvc repro` from `metrics/`; curves are in `history/`, more in `plots/`.",
        _caution(drawn),
        "## Models\n\nAccuracy on the test split with its 95 % Wilson interval.\n\n"
        + models(values, measured, published),
        *(_unseen(name, found) for name, found in measured.items() if found.get("unseen_images")),
        "## Data\n\nImages in each split, and in its smallest and largest class.\n\n" + datasets(data),
    ]
    with replacing(REPORTS / "README.md") as part:
        part.write_text("\n\n".join(filter(None, sections)) + "\n")
    print(f"reports/README.md: {len(measured)} models")


def models(values: params.Params, measured: dict[str, Any], published: dict[str, Any]) -> str:
    """A row for each model of params.yaml, in its order."""
    rows = []
    for name, model in values.models.items():
        found, claim = measured[name], published.get(name)
        rows.append(
            [
                f"[`{name}`](history/{name}.csv)",
                model.dataset,
                model.architecture,
                f"{found['parameters']:,}",
                found["epochs"],
                f"{found['validation_accuracy']:.2%}",
                f"{found['accuracy']:.2%} ({found['accuracy_low']:.2%} – {found['accuracy_high']:.2%})",
                f"{found['macro_f1']:.3f}",
                _claim(claim) if claim else "",
            ]
        )
    return table(
        [
            "Model",
            "Dataset",
            "Architecture",
            "Parameters",
            "Epochs",
            "Validation",
            "Test accuracy",
            "Macro-F1",
            "Published",
        ],
        rows,
    )


def datasets(data: dict[str, dict[str, dict[str, int]]]) -> str:
    """A row for each dataset and split: images, classes, images of the smallest and of the largest class."""
    rows = [
        [
            name,
            split,
            f"{sum(counts.values()):,}",
            len(counts),
            f"{min(counts.values()):,}",
            f"{max(counts.values()):,}",
        ]
        for name, splits in data.items()
        for split, counts in splits.items()
    ]
    return table(["Dataset", "Split", "Images", "Classes", "Smallest class", "Largest class"], rows)


def table(head: list[str], rows: Iterable[list[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _claim(claim: dict[str, Any]) -> str:
    figure = f"{claim['figure']} {claim['split']}"
    return f"[{figure}]({claim['source']})" if claim["source"] else figure


def _caution(drawn: list[str]) -> str:
    if not drawn:
        return ""
    return (
        f"**Drawn samples: {', '.join(drawn)}.** Accuracies on them show that the pipeline works; they say nothing of "
        "the real data and weights and cannot be compared with the published figures."
    )


def _unseen(name: str, found: dict[str, Any]) -> str:
    return (
        f"`{name}` on the {found['unseen_images']:,} test images whose names are not of ImageNet's training split, on "
        f"which its backbone was trained: {found['unseen_accuracy']:.2%}."
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `dvc repro`") from None


if __name__ == "__main__":
    run(report)
