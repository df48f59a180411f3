"""MLflow from the command line: `sync` sends pending runs, `runs` lists the run that trained each model."""

from stages.config import params
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError, mask_urls
from stages.runtime.files import file_hash
from stages.tracking import pending, server


def sync() -> None:
    """Send everything pending, trainings before evaluations."""
    before = {run.id: run for run in pending.read_all()}
    server.flush(strict=True)
    left = before.keys() & {run.id for run in pending.read_all()}
    evaluated = [run for run in before.values() if run.id not in left and not run.checkpoint]
    unknown = [run.name for run in evaluated if not server.find_run(run.experiment, run.model_md5 or "")]
    kept = f", kept {len(left)} of trainings that are not over" if left else ""
    print(f"MLflow at {mask_urls(server.uri())}: sent {len(before) - len(left) - len(unknown)} pending runs{kept}")
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        print(f"dropped test metrics of models whose training is not in this MLflow, as DVC had their outputs: {names}")


def runs() -> None:
    """Print the run that trained each model of params.yaml as it lies in data/models, wherever DVC got it from."""
    for name, model in params.load().resolved_models.items():
        if not paths.model(name).exists():
            print(f"{name}: no model; run `dvc repro train@{name}` or `dvc pull`")
            continue
        run_id = server.find_run(model.dataset, file_hash(paths.model(name), "md5"))
        print(f"{name}: " + (f"run {run_id} in experiment {model.dataset}" if run_id else "no run in this MLflow"))


def main(command: str) -> None:
    """Run `sync` or `runs`."""
    commands = {"sync": sync, "runs": runs}
    if command not in commands:
        raise UserError(f"{command}: no such command; `sync` sends pending runs, `runs` lists the runs of the models")
    commands[command]()


if __name__ == "__main__":
    run(main, "command")
