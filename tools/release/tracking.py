"""MLflow from the command line: `sync` logs what it has missed, `runs` lists the run that trained each model."""

from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.config import params
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError, mask_urls
from stages.runtime.files import file_hash
from stages.tracking import runs as mlflow_runs
from stages.tracking import server
from stages.tracking.sync import MissingOutputError, TrainedModel
from tools.lib.git import experiments


def sync() -> None:
    """Log the models and results of the workspace and of DVC's experiments that MLflow does not have.

    Raises:
        UserError: MLflow does not answer, or refused something; everything else is logged.
    """
    logged, absent, refused = list[str](), list[str](), list[str]()
    try:
        client = server.connect()
        mlflow_runs.end_abandoned(client)
    except Exception as error:
        raise server.strict(error) from None
    for what, model in _trained():
        try:
            is_new = mlflow_runs.trained_by(client, model.model_md5) is None
            if model.log_evaluation(client, model.log_run(client)) or is_new:
                logged.append(what)
        except MissingOutputError as error:
            absent.append(f"{what} ({error})")
        except Exception as error:
            refused.append(f"{what}: {server.failure(error)}")
    print(f"MLflow at {mask_urls(server.uri())}: logged {', '.join(logged) or 'nothing new'}")
    for each in absent:
        print(f"not logged: {each}")
    if refused:
        raise UserError(f"not logged: {'; '.join(refused)}")


def _trained() -> Iterator[tuple[str, TrainedModel]]:
    """Each trained model of the workspace and of DVC's experiments, and what to call it."""
    from dvc.api import DVCFileSystem

    known, yaml = set[str](), YAML(typ="safe")
    pure = YAML(typ="safe", pure=True)  # it also reads what DVC wrote before, which the parser in C refuses
    for experiment in (None, *experiments()):
        files = DVCFileSystem(rev=experiment.ref) if experiment else None

        def read(path: Path, files: DVCFileSystem | None = files) -> bytes:
            return bytes(files.read_bytes(path.as_posix())) if files else path.read_bytes()

        tags = {"dvc_experiment": experiment.name, "dvc_baseline": experiment.baseline} if experiment else {}
        try:
            stages = yaml.load(read(paths.LOCK))["stages"]
            names = pure.load(read(paths.PARAMS))["models"]
        except (FileNotFoundError, LookupError, YAMLError):  # nothing was reproduced, or by another version
            continue
        for model in (TrainedModel(name, stages, read, tags) for name in names):
            if model.model_md5 and model.model_md5 not in known:
                known.add(model.model_md5)
                yield f"{model.name} of {experiment.name}" if experiment else model.name, model


def runs() -> None:
    """Print the run that trained each model of params.yaml as it lies in data/models, wherever DVC got it from."""
    models = params.load().resolved_models
    try:
        client = server.connect()
        for name, model in models.items():
            if not paths.model(name).exists():
                print(f"{name}: no model; run `dvc repro train@{name}` or `dvc pull`")
            elif found := mlflow_runs.trained_by(client, file_hash(paths.model(name), "md5")):
                print(f"{name}: run {found.info.run_id} in experiment {model.dataset}")
            else:
                print(f"{name}: no run in this MLflow; `{server.SYNC}` makes one from its files")
    except Exception as error:
        raise server.strict(error) from None


def main(command: str) -> None:
    """Run `sync` or `runs`."""
    commands = {"sync": sync, "runs": runs}
    if command not in commands:
        raise UserError(f"{command}: no such command; `sync` logs what is missing, `runs` lists the runs of the models")
    commands[command]()


if __name__ == "__main__":
    run(main, "command")
