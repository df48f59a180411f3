"""`make seeds`: how far the seed alone moves each model, over experiments that differ in nothing else."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator

from stages.console import UserError, run
from tools.revision import Revision, Training, experiments, table


def seeds(names: str) -> None:
    """Print mean, standard deviation and range of each model's accuracies, where two seeds or more have trained it.

    What counts is dvc.lock, not params.yaml: an experiment that trains one model with a new seed leaves the others with
    the old one. Trainings that differ in params, code or data have rows of their own.

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
                recipe = json.dumps([training.params, training.deps], sort_keys=True)
                groups[model][recipe][training.seed] = training
                sources[model, recipe].add(revision.name)
    rows: list[list[str]] = []
    used: set[str] = set()
    for model, recipes in groups.items():
        for recipe, trainings in recipes.items():
            if len(trainings) > 1:
                rows += _rows(model, trainings, head.training(model))
                used |= sources[model, recipe]
    if not rows:
        raise UserError("no model is trained with two seeds; `dvc exp run -S seed=1` trains all with another one")
    print(table(["Model", "Params", "Accuracy", "Seeds", "Mean", "SD", "Range"], "lllrrrr", rows))
    print("\nSD: standard deviation over the seeds, with n − 1, in points.")
    alone = [revision.name for revision in revisions if revision.name not in used]
    if alone:
        print(f"Left out, without another seed of the same params, code and data: {', '.join(alone)}.")


def _rows(model: str, trainings: dict[int, Training], head: Training | None) -> Iterator[list[str]]:
    """Cells for the test and the validation accuracy of one recipe."""
    params = next(iter(trainings.values())).changes(head) if head else "new"
    for split, key in (("test", "accuracy"), ("validation", "validation_accuracy")):
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
