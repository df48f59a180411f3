"""`make seeds`: the spread of each model's accuracy over experiments that differ in nothing but the seed."""

import json
from collections import defaultdict
from statistics import mean, stdev

from stages.reporting.markdown import table
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib.git import experiments
from tools.lib.revision import Revision, Training


def seeds(names: str) -> None:
    """Print mean, standard deviation and range of the accuracies of each model that was trained with several seeds.

    dvc.lock decides, not params.yaml: an experiment that trains one model with a new seed leaves the others with the
    old one. Trainings that differ in params, code or data have separate rows.

    Args:
        names: experiments or other revisions, with spaces between; empty for HEAD and all experiments.

    Raises:
        UserError: there is no such revision, or nothing to compare.
    """
    chosen = {name: name for name in names.split()}
    chosen = chosen or {"HEAD": "HEAD"} | {found.name: found.ref for found in experiments()}
    groups = defaultdict[tuple[str, str], dict[str, Training]](dict)
    for name, rev in chosen.items():
        for model, training in Revision(rev, name=name).trainings.items():
            config = json.dumps([training.params, training.sources], sort_keys=True)
            groups[model, config][name] = training
    head, rows, alone = Revision("HEAD"), [], list(chosen)
    for (model, _), group in groups.items():
        trainings = list({training.seed: training for training in reversed(group.values())}.values())
        if len(trainings) < 2:
            continue
        alone = [name for name in alone if name not in group]
        params = trainings[-1].changes(head.trainings[model]) if model in head.trainings else "new"
        for split, key in (("validation", "validation_accuracy"), ("test", "accuracy")):
            values = [training.metrics[key] for training in trainings if key in training.metrics]
            if len(values) < 2:  # they had no validation images
                continue
            spread = [f"{mean(values):.2%}", f"{100 * stdev(values):.2f}", f"{min(values):.2%} – {max(values):.2%}"]
            rows.append([model, params, split, len(values), *spread])
    if not rows:
        raise UserError("no model was trained with two seeds; `dvc exp run -S seed=1` trains all with another seed")
    print(table(["Model", "Params", "Accuracy", "Seeds", "Mean", "SD", "Range"], rows, "lllrrrr"))
    print("\nSD: sample standard deviation over the seeds, in percentage points. Select by validation accuracy.")
    if alone:
        print(f"Left out, no second seed with the same params, code and data: {', '.join(alone)}.")


if __name__ == "__main__":
    run(seeds, "experiments")
