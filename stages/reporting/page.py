"""Render reports/README.md and reports/index.html. The page needs no other file and no network."""

import re
from pathlib import Path
from typing import Any

import jinja2

from stages.evaluation.metrics import METRICS
from stages.plots._style import percent


def render(template: str, **values: Any) -> str:
    """Render a file of stages/reporting/templates; in HTML, every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    models = [getattr(each, "model", each) for each in values["models"]]
    columns = {
        name: metric
        for name, metric in METRICS.items()
        if metric.column and any(name in model.metrics for model in models)
    }
    return environment.get_template(template).render(
        values,
        all_metrics=METRICS,
        columns=columns,
        measured=any(model.measured for model in models),
        outdated=any(model.measured and model.outdated for model in models),
        published=any(model.published for model in models),
        published_range=published_range,
    )


def published_range(value: str) -> tuple[float, float] | None:
    """The lowest and the highest number of a published value such as `90.8 %` or `78–80 %`, in percent."""
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", value)]
    return (min(numbers), max(numbers)) if numbers else None
