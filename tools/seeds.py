"""`make seeds`: the spread of each model's accuracy over experiments that differ in nothing but the seed."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator

from stages.reporting.markdown import table
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.revision import Revision, Training, experiments


def seeds(names: str) -> None:
    """Print mean, standard deviation and range of the accuracies of each model that was trained with several seeds.

    dvc.lock decides, not params.yaml: an experiment that trains one model with a new seed leaves the others with the
    old one. Trainings that differ in params, code or data have separate rows.

    Args:
        names: of experiments or other revisions, with spaces between; empty for HEAD and all its experiments.

    Raises:
        UserError: there is no such revision, or nothing to compare.
    """
    head = Revision("HEAD")
    chosen = names.split() or [name for name, _, state in experiments() if not state]
    revisions = [*([] if names.split() else [head]), *map(Revision, chosen)]
    groups: dict[str, dict[str, dict[int, Training]]] = defaultdict(lambda: defaultdict(dict))
    sources: dict[tuple[str, str], set[str]] = defaultdict(set)
    for revision in revisions:
        for model in revision.metrics:
            training = revision.training(model)
            if training:
                config = json.dumps([training.params, training.deps], sort_keys=True)
                groups[model][config][training.seed] = training
                sources[model, config].add(revision.name)
    rows: list[list[str]] = []
    used: set[str] = set()
    for model, configs in groups.items():
        for config, trainings in configs.items():
            if len(trainings) > 1:
                rows += _rows(model, trainings, head.training(model))
                used |= sources[model, config]
    if not rows:
        raise UserError("no model was trained with two seeds; `dvc exp run -S seed=1` trains all with another seed")
    print(table(["Model", "Params", "Accuracy", "Seeds", "Mean", "SD", "Range"], rows, "lllrrrr"))
    print("\nSD: sample standard deviation over the seeds, in percentage points. Select by validation accuracy.")
    alone = [revision.name for revision in revisions if revision.name not in used]
    if alone:
        print(f"Left out, no second seed with the same params, code and data: {', '.join(alone)}.")


def _rows(model: str, trainings: dict[int, Training], head: Training | None) -> Iterator[list[str]]:
    """Cells for the validation and the test accuracy of one configuration."""
    params = next(iter(trainings.values())).changes(head) if head else "new"
    for split, key in (("validation", "validation_accuracy"), ("test", "accuracy")):
        found = [training.metrics[key] for training in trainings.values()]
        yield [
            model,
            params,
            split,
            str(len(found)),
            f"{statistics.mean(found):.2%}",
            f"{100 * statistics.stdev(found):.2f}",
            f"{min(found):.2%} – {max(found):.2%}",
        ]


if __name__ == "__main__":
    run(seeds, "experiments")
