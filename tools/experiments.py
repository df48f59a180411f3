"""`make experiments`: what each DVC experiment of HEAD changed, and what that did to which model.

`dvc exp show` has a column for each metric of each model, headed by the path of its file: with two models it is wider
than a screen. Here a model is a row.
"""

from collections.abc import Iterator

from stages.console import run
from tools.revision import ABSENT, Revision, differences, experiments, points, table


def show() -> None:
    """Print a row for each experiment and each model that it has trained otherwise than HEAD."""
    head = Revision("HEAD")
    rows = [row for name, rev, state in experiments() for row in _rows(name, Revision(rev), state, head)]
    if rows:
        print(table(["Experiment", "Params", "Model", "Validation", "Test", "HEAD", "Points"], "lllrrrr", rows))
    else:
        print(f"no experiments of HEAD ({head.commit}): `dvc exp run -S models.mnist_cnn.epochs=3` makes one")


def _rows(name: str, experiment: Revision, state: str, head: Revision) -> Iterator[list[str]]:
    """Cells for each model, of which only the first has the experiment's name; one row if there are no figures."""
    changed = " ".join(f"{key}={value}" for key, _, value in differences(head.params, experiment.params))
    trained = {model: experiment.training(model) for model in experiment.metrics} if not state else {}
    base = {model: head.training(model) for model in trained}
    found = {model: training for model, training in trained.items() if training and training != base[model]}
    if not found:
        yield [name, changed, state or "no other metrics", *[ABSENT] * 4]
    for model, training in found.items():
        was = base[model]
        seed = f"seed={training.seed} " if was and training.seed != was.seed else ""
        yield [
            name,
            seed + training.changes(was) if was else "new",
            model,
            f"{training.metrics['validation_accuracy']:.2%}",
            f"{training.metrics['accuracy']:.2%}",
            f"{was.metrics['accuracy']:.2%}" if was else ABSENT,
            points(was.metrics, training.metrics) if was else ABSENT,
        ]
        name = ""


if __name__ == "__main__":
    run(show)
