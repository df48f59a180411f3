"""`make experiments`: what each DVC experiment of HEAD changed, and the accuracy of each model it trained.

`dvc exp show` has a column for each metric of each model: with two models it is wider than a screen. Here a model is a
row. The best validation accuracy comes first: select by it. The test accuracy stands beside it as information.
"""

from stages.reporting.markdown import table
from stages.runtime.cli import run
from tools.revision import ABSENT, Revision, differences, experiments, points

Row = tuple[tuple[int, float], list[str]]  # rank, cells


def show() -> None:
    """Print a row for each experiment and each model that it trained differently from HEAD, models apart."""
    head = Revision("HEAD")
    rows = [row for name, rev, state in experiments() for row in _rows(name, Revision(rev), state, head)]
    if rows:
        print(
            table(
                ["Model", "Experiment", "Params", "Validation", "HEAD", "Points", "Test"],
                [cells for _, cells in sorted(rows, key=lambda row: row[0])],
                "lllrrrr",
            )
        )
    else:
        print(f"no experiments of HEAD ({head.commit[:7]}): `dvc exp run -S models.mnist_cnn.epochs=3` makes one")


def _rows(name: str, experiment: Revision, state: str, head: Revision) -> list[Row]:
    """A row for each trained model; one row if there are no metrics."""
    trained = {model: experiment.training(model) for model in experiment.metrics} if not state else {}
    base = {model: head.training(model) for model in trained}
    found = {model: training for model, training in trained.items() if training and training != base[model]}
    if not found:
        changed = " ".join(f"{key}={value}" for key, _, value in differences(head.params, experiment.params))
        return [((len(head.metrics) + 1, 0.0), [state or "no other metrics", name, changed, *[ABSENT] * 4])]
    models = [*head.metrics, *(model for model in found if model not in head.metrics)]
    rows: list[Row] = []
    for model, training in found.items():
        was, accuracy = base[model], training.metrics["validation_accuracy"]
        seed = f"seed={training.seed} " if was and training.seed != was.seed else ""
        cells = [
            model,
            name,
            (seed + training.changes(was)).strip() if was else "new",
            f"{accuracy:.2%}",
            f"{was.metrics['validation_accuracy']:.2%}" if was else ABSENT,
            points(was.metrics, training.metrics) if was else ABSENT,
            f"{training.metrics['accuracy']:.2%}",
        ]
        rows.append(((models.index(model), -accuracy), cells))
    return rows


if __name__ == "__main__":
    run(show)
