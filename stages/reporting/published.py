"""Measured results on the published data, reports/published/: one folder a seed, written by `make published`."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.reporting.markdown import table
from stages.runtime import paths

# The stages whose code and params decide which model comes out
UPSTREAM = ("preprocess", "preprocess_folder", "extract", "train")


@dataclass(frozen=True)
class MeasuredResult:
    """The trainings of one model on the published data, one for each seed."""

    metrics: list[dict[str, Any]]
    seconds: list[float]  # of each training
    machines: set[str]
    current: bool  # whether today's code and params would train the same models

    def mean(self, metric: str) -> float:
        """Mean over the seeds."""
        return statistics.mean(metrics[metric] for metrics in self.metrics)

    def spread(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None for a single seed."""
        values = [metrics[metric] for metrics in self.metrics]
        return statistics.stdev(values) if len(values) > 1 else None


def read() -> dict[str, MeasuredResult]:
    """The measured results of every model that has any, in the order of params.yaml."""
    lock, order = _stages(Path("dvc.lock")), YAML(typ="safe").load(paths.PARAMS.read_text())["models"]
    runs: dict[str, list[tuple[dict[str, Any], dict[str, Any], bool]]] = {}
    for folder in sorted(paths.MEASURED.glob("seed-*"), key=lambda path: int(path.name.partition("-")[2])):
        stages, facts = _stages(folder / "dvc.lock"), json.loads((folder / "runs.json").read_text())
        for name, fact in facts.items():
            metrics = json.loads((folder / "metrics" / f"{name}.json").read_text())
            runs.setdefault(name, []).append((metrics, fact, _causes(stages, name) == _causes(lock, name)))
    return {
        name: MeasuredResult(
            [metrics for metrics, _, _ in runs[name]],
            [fact["seconds"] for _, fact, _ in runs[name]],
            {fact["machine"] for _, fact, _ in runs[name]},
            all(current for _, _, current in runs[name]),
        )
        for name in order
        if name in runs
    }


def markdown(results: dict[str, MeasuredResult], published: dict[str, Any]) -> str:
    """A table with a row for each model. A star marks results of other code or params than today's.

    Args:
        results: from `read`.
        published: entries of reports/published.yaml by model.
    """
    rows = [
        [
            f"`{name}`" + ("" if result.current else " \\*"),
            len(result.metrics),
            _percent(result, "validation_accuracy"),
            _percent(result, "accuracy"),
            _published(published.get(name)),
            f"{statistics.mean(result.seconds) / 60:.1f}",
        ]
        for name, result in results.items()
    ]
    return table(["Model", "Seeds", "Validation", "Test", "Published", "Minutes"], rows, "lrrrlr")


def _percent(result: MeasuredResult, metric: str) -> str:
    spread = result.spread(metric)
    return f"{result.mean(metric):.2%}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _published(entry: Any) -> str:
    if not entry:
        return "–"
    text = f"{entry.value} {entry.split}"
    text = f"[{text}]({entry.source})" if entry.source else text
    return f"{text}; {entry.differs}" if entry.differs else text


def _stages(lock: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(lock.read_text())["stages"] if lock.exists() else {}


def _causes(stages: dict[str, Any], model: str) -> Any:
    """What decides a training besides its data and seed: the code and params of `train@model` and of what it reads."""
    causes, waiting = [], [f"train@{model}"]
    for name in waiting:
        stage = stages.get(name, {})
        deps = {dep["path"]: dep["md5"] for dep in stage.get("deps", [])}
        params = dict(stage.get("params", {}).get("params.yaml", {}))
        params = {key: value for key, value in params.items() if key not in ("seed", "source")}
        causes.append((name, {path: md5 for path, md5 in deps.items() if path.startswith("stages/")}, params))
        records = [Path(path).name for path in deps if path.startswith("data/records/")]
        waiting += [f"{kind}@{data}" for data in records for kind in UPSTREAM[:-1] if f"{kind}@{data}" in stages]
    return causes
