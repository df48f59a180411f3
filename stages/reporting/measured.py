"""Measured results on the real data, reports/measured/: one folder a seed, written by `make measure`.

The folder `whole` has the same of trainings on the whole training split, with `train.validation_fraction: 0`.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.config import params
from stages.config.schema import Params
from stages.reporting.markdown import table
from stages.runtime import dvc_lock, paths

WHOLE = paths.MEASURED / "whole"


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
        """Mean and spread as text; empty if not all seeds have the metric."""
        if not all(metric in metrics for metrics in self.metrics):
            return ""
        spread = self.spread(metric)
        return f"{self.mean(metric):.2%}" + ("" if spread is None else f" ± {100 * spread:.2f}")

    def mean_fact(self, fact: str) -> float:
        """Mean over the seeds."""
        return statistics.mean(facts[fact] for facts in self.facts)


def read(root: Path = paths.MEASURED) -> dict[str, MeasuredResult]:
    """The measured results in `root` or `WHOLE` of every model that has any, in the order of params.yaml."""
    runs: dict[str, MeasuredResult] = {}
    for folder in _folders(root):
        for name, facts in read_facts(folder).items():
            result = runs.setdefault(name, MeasuredResult([], []))
            result.metrics.append(json.loads((folder / "metrics" / f"{name}.json").read_text(encoding="utf-8")))
            result.facts.append(facts)
    return {name: runs[name] for name in params.load().models if name in runs}


def outdated(values: Params | None = None) -> set[str]:
    """Models with a measured result that today's params or code would not give.

    Of code, what counts is the digest of a small training, which `make probe` writes to `paths.PROBES`.
    """
    values = values or params.load()
    digests = json.loads(paths.PROBES.read_text(encoding="utf-8")) if paths.PROBES.exists() else {}
    records = dvc_lock.output_hashes()
    marked = set()
    for root, trained in ((paths.MEASURED, values), (WHOLE, on_whole_split(values))):
        for folder in _folders(root):
            for name, facts in read_facts(folder).items():
                if name in values.models and (
                    facts.get("params") != training_params(trained, name)
                    or facts.get("probe") != digests.get(name)
                    or not _same_records(values, name, facts.get("records"), records)
                ):
                    marked.add(name)
    return marked


def on_whole_split(values: Params) -> Params:
    """The params of trainings that hold out no validation images."""
    return values.model_copy(update={"train": values.train.model_copy(update={"validation_fraction": 0})})


def training_params(values: Params, name: str) -> dict[str, Any]:
    """What params.yaml says of a model's training on real data, besides the seed: JSON values without defaults."""
    model = values.models[name]
    start = values.pretrained.get(model.dataset)
    head = {"head": training_params(values, start.head)} if start else {}
    found = {
        "model": model,
        "features": values.features.get(model.dataset),
        "pretrained": start,
        "train": values.train,
    }
    shown = {key: part.model_dump(mode="json", exclude_defaults=True) for key, part in found.items() if part}
    for part in shown.values():
        part.pop("synthetic", None)
    return {**shown, **head, "threads": values.threads, "kernels": values.kernels.real}


def _same_records(values: Params, name: str, records: str | None, locked: dict[str, str]) -> bool:
    """Whether a run read the records of dvc.lock, if those are of real data."""
    if values.is_model_synthetic(name):
        return True
    return locked.get(paths.records(values.resolved_models[name].dataset).as_posix()) in (None, records)


def markdown(
    results: dict[str, MeasuredResult],
    whole: dict[str, MeasuredResult],
    published: dict[str, Any],
    outdated: set[str],
) -> str:
    """A table with a row for each model. A star marks the outdated ones.

    Args:
        results: from `read`.
        whole: those of `WHOLE`.
        published: entries of reports/published.yaml by model.
        outdated: from `outdated`.
    """
    rows = [
        [
            f"`{name}`" + (" \\*" if name in outdated else ""),
            len(result.metrics),
            result.percent("validation_accuracy"),
            result.percent("accuracy"),
            result.percent("accuracy_without_tta"),
            whole[name].percent("accuracy") if name in whole else "",
            _published(published.get(name)),
            f"{result.mean_fact('cpu_seconds') / 60:.1f}",
        ]
        for name, result in results.items()
    ]
    head = ["Model", "Seeds", "Validation", "Test", "Test without TTA", "Test, whole split", "Published", "CPU minutes"]
    return table(head, rows, "lrrrrrlr")


def _folders(root: Path) -> list[Path]:
    """The folders of the seeds, in their order."""
    return sorted(root.glob("seed-*"), key=lambda path: int(path.name.partition("-")[2]))


def read_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """What is known of each run of a seed: seconds, cpu_seconds, machine, params, records and the probe's digest."""
    path = folder / "runs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # not yet, if the first was killed


def _published(entry: Any) -> str:
    if not entry:
        return "–"
    text = f"{entry.value} {entry.split}"
    text = f"[{text}]({entry.source})" if entry.source else text
    return f"{text}; {entry.differs}" if entry.differs else text
