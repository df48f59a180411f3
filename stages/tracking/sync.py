"""Logs in MLflow what it has missed, rebuilt from dvc.lock and the outputs that it names: nothing is kept for it."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from ruamel.yaml import YAML

from stages.config import params
from stages.config.schema import Params
from stages.runtime import dvc_lock, paths
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from stages.tracking import runs, server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Facts in reports/metrics/NAME.json that are no results on the test split
TRAINING = "validation_accuracy", "validation_images", "parameters", "epochs", "compute_dtype"


class MissingOutputError(UserError):
    """An output of a training is not at hand."""


@dataclass
class TrainedModel:
    """A trained model of the workspace.

    Attributes:
        name: the model.
        stages: what dvc.lock says of each stage.
    """

    name: str
    stages: Mapping[str, Any]

    @property
    def model_md5(self) -> str:
        """DVC's hash of the model file; empty if the model is not trained."""
        return self._hashes("train", "outs").get(paths.model(self.name).as_posix(), "")

    def log_run(self, client: "MlflowClient") -> "Run":
        """The run that trained the model; it is rebuilt if MLflow does not have it.

        Raises:
            MissingOutputError: the model or what is known of its training is neither here nor in a remote.
        """
        with FileLock(server.STORE / ".sync.lock"):  # another process may log the same run
            return runs.trained_by(client, self.model_md5) or client.get_run(self._rebuild(client))

    def log_evaluation(self, client: "MlflowClient", run: "Run") -> bool:
        """Add test metrics and tables of plots to the run that trained the model; whether they were missing."""
        trained, plots = self._hashes("train", "outs"), map(Path, self._hashes("evaluate", "outs"))
        is_current = all(trained.get(path, md5) == md5 for path, md5 in self._hashes("evaluate", "deps").items())
        if not is_current or f"evaluate@{self.name}" not in self.stages:
            return False
        metrics = json.loads(self._read(paths.metrics(self.name)))
        test = {f"test_{key}": float(value) for key, value in metrics.items() if key not in TRAINING}
        if test.items() <= run.data.metrics.items():
            return False
        for plot in plots:
            if plot.suffix == ".csv":
                target = f"plots/{plot.parent.name}/{plot.name}"
                client.log_text(run.info.run_id, self._read(plot), target)
        runs.log_epochs(client, run.info.run_id, [(0, test)])  # last: with them, everything is there
        return True

    def _rebuild(self, client: "MlflowClient") -> str:
        """Complete the run of a training that lost MLflow on the way, or create one; return its id."""
        path = paths.model(self.name)
        if not path.exists() or file_hash(path, "md5") != self.model_md5:
            raise MissingOutputError(f"{path}: not that of {paths.LOCK}; run `dvc checkout {path}` or `dvc pull`")
        history = csv.DictReader(self._read(paths.history(self.name)).splitlines())
        rows = [(int(row.pop("epoch")), {key: float(value) for key, value in row.items()}) for row in history]
        environment = json.loads(self._read(paths.environment("train", self.name)))
        values = self._params()
        model = values.resolved_models[self.name]
        given = runs.params(model, runs.training_facts(values, self.name, environment["compute_dtype"]))
        condition = f"tags.stage = 'train@{self.name}' and attributes.status != 'FINISHED'"
        found = runs.find(client, condition)
        if found and found.data.params == given:
            run_id = str(found.info.run_id)
        else:
            records = self._hashes("train", "deps").get(paths.records(model.dataset).as_posix(), "")
            run_id = runs.create(client, self.name, model.dataset, records, given, {})
        logged = runs.last_epoch(client, run_id)
        runs.log_epochs(client, run_id, [row for row in rows if row[0] > logged])
        runs.log_model(client, run_id, self.name, path)
        client.set_terminated(run_id)
        return run_id

    def _params(self) -> Params:
        """params.yaml as the model was trained: dvc.lock has the values of then."""
        values: Any = YAML(typ="safe", pure=True).load(self._read(paths.PARAMS))
        for key, value in self.stages[f"train@{self.name}"]["params"][paths.PARAMS.as_posix()].items():
            section, _, entry = key.partition(".")
            values[section] = {**values[section], entry: value} if entry else value
        return params.check(values, paths.PARAMS)

    def _hashes(self, stage: str, kind: str) -> dict[str, str]:
        """DVC's hashes of the outs or deps of a stage of the model by their paths."""
        return {entry["path"]: entry["md5"] for entry in self.stages.get(f"{stage}@{self.name}", {}).get(kind, [])}

    def _read(self, path: Path) -> str:
        if not path.exists():
            advice = f"run `dvc pull evaluate@{self.name}` or `dvc repro evaluate@{self.name}`"
            raise MissingOutputError(f"{path}: missing; {advice}")
        return path.read_text(encoding="utf-8")


def log_evaluations(names: list[str]) -> None:
    """Add test metrics and tables to the runs of models; only a warning if MLflow does not answer.

    A model without a run gets none here: DVC's cache had it, or MLflow was away when it was trained.
    """
    stages, missing = dvc_lock.read().get("stages", {}), []
    try:
        client = server.connect()
        for model in (TrainedModel(name, stages) for name in names):
            if found := runs.trained_by(client, model.model_md5):
                model.log_evaluation(client, found)
            else:
                missing.append(model.name)
    except Exception as error:  # whatever it is, it must not stop a report
        print(f"warning: {server.failure(error)}; `{server.SYNC}` logs the results later", flush=True)
    if missing:
        print(f"no MLflow run: {', '.join(missing)}; `{server.SYNC}` makes one of each from its files", flush=True)
