"""Measured results on the real data, reports/measured/: one folder a seed, written by `make measure`."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.reporting.markdown import table
from stages.runtime import paths

# The stages whose code and params decide which model comes out
UPSTREAM = ("preprocess", "preprocess_folder", "extract", "join", "train")


@dataclass(frozen=True)
class MeasuredResult:
    """The trainings of one model on the real data, one for each seed."""

    metrics: list[dict[str, Any]]
    facts: list[dict[str, Any]]  # seconds and cpu_seconds of each training, and its machine

    def mean(self, metric: str) -> float:
        """Mean over the seeds."""
        return statistics.mean(metrics[metric] for metrics in self.metrics)

    def spread(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None for a single seed."""
        values = [metrics[metric] for metrics in self.metrics]
        return statistics.stdev(values) if len(values) > 1 else None

    def percent(self, metric: str) -> str:
        """Mean and spread as text."""
        spread = self.spread(metric)
        return f"{self.mean(metric):.2%}" + ("" if spread is None else f" ± {100 * spread:.2f}")

    def mean_fact(self, fact: str) -> float:
        """Mean over the seeds."""
        return statistics.mean(facts[fact] for facts in self.facts)


def read() -> dict[str, MeasuredResult]:
    """The measured results of every model that has any, in the order of params.yaml."""
    runs: dict[str, MeasuredResult] = {}
    for folder in _folders():
        for name, facts in json.loads((folder / "runs.json").read_text(encoding="utf-8")).items():
            result = runs.setdefault(name, MeasuredResult([], []))
            result.metrics.append(json.loads((folder / "metrics" / f"{name}.json").read_text(encoding="utf-8")))
            result.facts.append(facts)
    return {name: runs[name] for name in _yaml(paths.PARAMS)["models"] if name in runs}


def outdated() -> set[str]:
    """Models with a measured result of other code or params than those of dvc.lock."""
    now = _yaml(paths.LOCK)["stages"] if paths.LOCK.exists() else {}
    found = set()
    for folder in _folders():
        then = _yaml(folder / paths.LOCK)["stages"]
        names = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
        found |= {name for name in names if _causes(then, name) != _causes(now, name)}
    return found


def markdown(results: dict[str, MeasuredResult], published: dict[str, Any], outdated: set[str]) -> str:
    """A table with a row for each model. A star marks the outdated ones.

    Args:
        results: from `read`.
        published: entries of reports/published.yaml by model.
        outdated: from `outdated`.
    """
    rows = [
        [
            f"`{name}`" + (" \\*" if name in outdated else ""),
            len(result.metrics),
            result.percent("validation_accuracy"),
            result.percent("accuracy"),
            result.percent("accuracy_without_tta") if "accuracy_without_tta" in result.metrics[0] else "",
            _published(published.get(name)),
            f"{result.mean_fact('cpu_seconds') / 60:.1f}",
        ]
        for name, result in results.items()
    ]
    head = ["Model", "Seeds", "Validation", "Test", "Test without TTA", "Published", "CPU minutes"]
    return table(head, rows, "lrrrrlr")


def _folders() -> list[Path]:
    """The folders of the seeds, in their order."""
    return sorted(paths.MEASURED.glob("seed-*"), key=lambda path: int(path.name.partition("-")[2]))


def _yaml(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def _published(entry: Any) -> str:
    if not entry:
        return "–"
    text = f"{entry.value} {entry.split}"
    text = f"[{text}]({entry.source})" if entry.source else text
    return f"{text}; {entry.differs}" if entry.differs else text


def _causes(stages: dict[str, Any], model: str) -> Any:
    """What decides a training besides its data and seed: the code and params of `train@model` and of what it reads."""
    causes, waiting = [], [f"train@{model}"]
    for name in waiting:
        stage = stages.get(name, {})
        deps = {dep["path"]: dep["md5"] for dep in stage.get("deps", [])}
        params = dict(stage.get("params", {}).get("params.yaml", {}))
        params = {key: value for key, value in params.items() if key not in ("seed", "source")}
        causes.append((name, {path: md5 for path, md5 in deps.items() if path.startswith("stages/")}, params))
        waiting += [f"train@{Path(path).stem}" for path in deps if path.startswith("data/models/")]  # of join: its head
        records = [Path(path).name for path in deps if path.startswith("data/records/")]
        waiting += [f"{kind}@{data}" for data in records for kind in UPSTREAM[:-1] if f"{kind}@{data}" in stages]
    return causes
