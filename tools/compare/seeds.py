"""`make seeds`: the spread of each model's accuracy over experiments that differ in nothing but the seed."""

import json

import pandas as pd

from stages.reporting.markdown import table
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib.revision import Revision, experiments


def seeds(names: str) -> None:
    """Print mean, standard deviation and range of the accuracies of each model that was trained with several seeds.

    dvc.lock decides, not params.yaml: an experiment that trains one model with a new seed leaves the others with the
    old one. Trainings that differ in params, code or data have separate rows.

    Args:
        names: experiments or other revisions, with spaces between; empty for HEAD and all experiments.

    Raises:
        UserError: there is no such revision, or nothing to compare.
    """
    every = {"HEAD": "HEAD"} | {name: rev for name, rev, state in experiments() if not state}
    chosen = {name: name for name in names.split()} or every
    found = pd.DataFrame(
        [
            [name, model, training.seed, json.dumps([training.params, training.deps], sort_keys=True), training]
            for name, rev in chosen.items()
            for model, training in Revision(rev, name=name).trainings.items()
        ],
        columns=["revision", "model", "seed", "config", "training"],
    )
    found = found[found.groupby(["model", "config"])["seed"].transform("nunique") > 1]
    if found.empty:
        raise UserError("no model was trained with two seeds; `dvc exp run -S seed=1` trains all with another seed")
    head, rows = Revision("HEAD"), []
    for (model, _), group in found.groupby(["model", "config"], sort=False):
        trainings = group.drop_duplicates("seed")["training"]
        params = trainings.iloc[0].changes(head.trainings[model]) if model in head.trainings else "new"
        for split, key in (("validation", "validation_accuracy"), ("test", "accuracy")):
            values = pd.Series([training.metrics[key] for training in trainings])
            spread = [f"{values.mean():.2%}", f"{100 * values.std():.2f}", f"{values.min():.2%} – {values.max():.2%}"]
            rows.append([model, params, split, len(values), *spread])
    print(table(["Model", "Params", "Accuracy", "Seeds", "Mean", "SD", "Range"], rows, "lllrrrr"))
    print("\nSD: sample standard deviation over the seeds, in percentage points. Select by validation accuracy.")
    alone = [name for name in chosen if name not in set(found["revision"])]
    if alone:
        print(f"Left out, no second seed with the same params, code and data: {', '.join(alone)}.")


if __name__ == "__main__":
    run(seeds, "experiments")
