"""`make repro` from nothing in a clone of HEAD: on the synthetic sample, and the tutorials on the real data."""

import tempfile
from pathlib import Path

from benchmarks.common import FOLDER, Result, Row, Table, Target, log
from benchmarks.pipeline import changed_params, prepare, run_in
from benchmarks.training import is_tutorial
from stages.config import params


def measure(quick: bool) -> Result:
    """Tutorials and all models on the sample, and tutorials on the real data; with `quick` the sample alone."""
    tutorials = [name for name, config in params.load().resolved_models.items() if is_tutorial(config)]
    sample = {f"the {len(tutorials)} tutorials": from_nothing(tutorials), "all models": from_nothing([])}
    targets = [
        Target(f"{models} on the sample, seconds", bound, seconds)
        for (models, seconds), bound in zip(sample.items(), ("≤ 240", "≤ 300"), strict=True)
    ]
    rows = [Row(f"sample, {models}", {"make repro": [seconds]}) for models, seconds in sample.items()]
    if not quick:
        seconds = from_nothing(tutorials, "real")
        rows.append(Row("published data, tutorials", {"make repro": [seconds]}))
        targets.append(Target("tutorials on the real data, minutes", "≤ 75", seconds / 60))
    return Result([Table("From nothing", "s", rows)], targets)


def from_nothing(models: list[str], source: str = "synthetic") -> float:
    """The seconds that `make repro` takes for `models`, or for all models if the list is empty."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        prepare(clone, models)
        (clone / ".venv").symlink_to(FOLDER.parent / ".venv")  # the installation is not part of the time
        with changed_params(clone) as values:
            values["source"] = source
        seconds = run_in(clone, Path(folder, "times.jsonl"), "make", "repro").seconds
    log(f"make repro, {source} data, {len(models) or 'all'} models: {seconds:.0f} s")
    return seconds
