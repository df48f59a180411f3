"""Every training as a run in MLflow. No other module knows MLflow, and no output depends on it.

What there is to say is written to a folder of its own first, mlruns/unsent/…, and sent from there, so that a server
that is down, slow or killed loses nothing: the stage says so once and goes on, and `python -m stages.tracking sync`
sends what is left. The folder goes when MLflow has all of it.

`python -m stages.tracking runs` tells which run produced each model, also where DVC restored it from its cache.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from stages import params
from stages.console import UserError, import_tensorflow, run
from stages.files import replacing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROOT = Path(os.environ.get("DVC_ROOT", "."))  # of the clone: `dvc exp run --temp` works elsewhere
STORE = ROOT / "mlruns"
UNSENT = STORE / "unsent"
SYNC = "python -m stages.tracking sync"
SECONDS_BETWEEN = 1.0  # an epoch may take less than a server far away
# Unless the user says otherwise. A server has this long to answer; MLflow's own patience is some minutes.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass
class Record:
    """What there is to say of a training, or of an evaluation: text in record.json, files beside it."""

    experiment: str
    name: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)  # by which a run is found again: none is made twice
    key: str | None = None  # of a training: where its checkpoint is, with which it goes on after a kill
    started: int = field(default_factory=lambda: _now())  # milliseconds since 1970, as all times here
    ended: int | None = None
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)  # name and digest
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)  # key, value, time, step
    model: str | None = None  # MD5 of the model file: of a training that is over, or of what was evaluated


class Sender:
    """A record that is being written, and sent while it is: MLflow is asked again after a failure only by `sync`."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._failed = False
        self._sent_at = -SECONDS_BETWEEN
        self._say()

    def epoch(self, step: int, row: Mapping[str, float]) -> None:
        """Log the metrics of an epoch, from 1. One that is logged already, before a kill, is passed over."""
        if any(found[3] == step for found in self.record.metrics):
            return
        now = _now()
        self.record.metrics += [(key, float(value), now, step) for key, value in row.items()]
        self._say(time.monotonic() - self._sent_at >= SECONDS_BETWEEN)

    def model(self, path: Path) -> None:
        """Log the file of the trained model."""
        _copy(path, UNSENT / self.record.id / "model.keras")
        self.record.model = md5(path)

    def end(self, status: str = "FINISHED") -> None:
        """Nothing more to say: send what is left."""
        self.record.ended, self.record.status = _now(), status
        self._say()

    def _say(self, now: bool = True) -> None:
        _write(self.record)
        if now and not self._failed:
            self._failed = not _sent(UNSENT / self.record.id, self.record)
            self._sent_at = time.monotonic()


@contextmanager
def training(name: str, recipe: params.Model, rest: Mapping[str, Any], key: str) -> Iterator[Sender]:
    """A run in the experiment of the model's dataset, from its first epoch to the end of the block.

    Args:
        name: of the model.
        recipe: its resolved entry; every value is a param.
        rest: further params.
        key: the path of the checkpoint. The run of a training that goes on after a kill goes on, too.
    """
    record = next((found for found in _records().values() if found.key == key and found.status != "FINISHED"), None)
    if record is None:
        record = Record(
            recipe.dataset,
            name,
            key=key,
            tags=_tags(f"train@{name}"),
            params=_flat({**recipe.model_dump(), **rest}),
            dataset=_dataset(recipe.dataset),
        )
    record.status, record.ended = "RUNNING", None
    sender = Sender(record)
    try:
        yield sender
    except KeyboardInterrupt:
        sender.end("KILLED")
        raise
    except BaseException:
        sender.end("FAILED")
        raise
    sender.end()


def evaluation(name: str, experiment: str, model: str, metrics: Mapping[str, float], plots: list[Path]) -> None:
    """Keep the measures of a model, and the files of its plots, for the run that trained it: `deliver` sends them.

    MLflow takes longer to import than a model to evaluate.

    Args:
        name: of the model.
        experiment: its dataset.
        model: MD5 of the model file.
        metrics: numbers, sent as test_….
        plots: files.
    """
    record = Record(experiment, name, tags={"stage": f"evaluate@{name}"}, model=model)
    record.metrics = [(f"test_{key}", float(value), record.started, 0) for key, value in metrics.items()]
    folder = UNSENT / record.id
    try:
        for plot in plots:
            _copy(plot, folder / "plots" / plot.parent.name / plot.name)
        _write(record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # without its record nobody knows whose plots they are
        raise


def deliver() -> None:
    """Send what `evaluation` has kept, of all models at once."""
    STORE.mkdir(parents=True, exist_ok=True)
    with FileLock(STORE / ".deliver"):  # experiments side by side
        for folder, record in _records().items():
            if record.key is None and not _sent(folder, record):
                return


def send(folder: Path, record: Record) -> None:
    """Bring MLflow up to date with a record, and remove its folder when nothing is left to say.

    Sending twice is harmless: runs are found by the record's id, metrics have the times of their epochs.

    Raises:
        Exception: MLflow's, of any kind.
    """
    client = _client()
    if record.key is None:  # an evaluation
        found = _search(client, record.experiment, f"tags.model_md5 = '{record.model}'")
        if found:
            _log_metrics(client, found.info.run_id, record)
            if (folder / "plots").exists():
                client.log_artifacts(found.info.run_id, str(folder / "plots"), "plots")
        elif any(other.key and other.model == record.model for other in _records().values()):
            return  # its training has not been sent either
        shutil.rmtree(folder)
        return
    found = _search(client, record.experiment, f"tags.record = '{record.id}'")
    run_id = found.info.run_id if found else _create(client, record)
    _log_metrics(client, run_id, record)
    if record.status == "FINISHED":
        if record.model and (found is None or "model_md5" not in found.data.tags):
            _log_model(run_id, folder / "model.keras", record)
            client.set_tag(run_id, "model_md5", record.model)
        client.set_terminated(run_id, "FINISHED", record.ended)
        shutil.rmtree(folder)
    elif record.ended:
        client.set_terminated(run_id, record.status, record.ended)
    elif found and found.info.status != "RUNNING":
        client.update_run(run_id, "RUNNING")


def sync() -> None:
    """Send what MLflow has not taken: trainings first, then what was measured of them.

    Raises:
        UserError: MLflow does not answer, or what it does not take.
    """
    unsent = _records()
    for folder, record in sorted(unsent.items(), key=lambda found: (found[1].key is None, found[1].started)):
        try:
            send(folder, record)
        except Exception as error:
            raise UserError(f"{_failure(error)}; what it has not taken is kept") from None
        print(f"{record.tags['stage']}: {len(record.metrics)} figures")
    left = len(_records())
    what = f"all but {left} trainings that are not over" if left else "all there is"
    print(f"MLflow at {_masked(uri())} has {what}")


def runs() -> None:
    """Print the run that produced each model of params.yaml as it lies in data/models.

    Raises:
        UserError: MLflow does not answer.
    """
    models = params.load().models
    try:
        client = _client()
    except Exception as error:
        raise UserError(f"{_failure(error)}; start it, or correct MLFLOW_TRACKING_URI") from None
    for name, model in models.items():
        path = Path("data/models") / f"{name}.keras"
        if not path.exists():
            print(f"{name}: no model; run `dvc repro train@{name}` or `dvc pull`")
            continue
        found = _search(client, model.dataset, f"tags.model_md5 = '{md5(path)}'")
        print(f"{name}: {f'run {found.info.run_id} in experiment {model.dataset}' if found else 'no run'}")


def uri() -> str:
    """MLFLOW_TRACKING_URI, or the database in the root of the clone, whatever the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(ROOT / 'mlflow.db').resolve()}"


def md5(path: Path) -> str:
    """The hash that DVC has of a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _client() -> "MlflowClient":
    """MLflow, with its database made by one process at a time."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri())
    STORE.mkdir(parents=True, exist_ok=True)
    with FileLock(STORE / ".lock"):
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    return client


def _search(client: "MlflowClient", experiment: str, condition: str) -> "Run | None":
    """The newest run of an experiment that a condition is true of."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    return next(iter(client.search_runs([found.experiment_id], condition, max_results=1)), None)


def _create(client: "MlflowClient", record: Record) -> str:
    """A run with all that is known before the first epoch; its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    with FileLock(STORE / ".lock"):  # two stages of one dataset at once
        experiment = client.get_experiment_by_name(record.experiment)
        if experiment is None:
            # A database has no place for files of its own; a server knows best.
            location = (STORE / record.experiment).resolve().as_uri() if uri().startswith("sqlite:") else None
            experiment_id = client.create_experiment(record.experiment, location)
        else:
            experiment_id = experiment.experiment_id
    tags = {**record.tags, "record": record.id}
    run_id = client.create_run(experiment_id, record.started, tags, record.name).info.run_id
    client.log_batch(run_id, params=[Param(key, value) for key, value in record.params.items()])
    if record.dataset:
        source = json.dumps({"path": f"data/records/{record.dataset['name']}"})
        dataset = Dataset(source_type="dvc", source=source, **record.dataset)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    return run_id


def _log_metrics(client: "MlflowClient", run_id: str, record: Record) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(*found) for found in record.metrics]
    for start in range(0, len(metrics), 1000):  # what MLflow takes at once
        client.log_batch(run_id, metrics[start : start + 1000])


def _log_model(run_id: str, path: Path, record: Record) -> None:
    """The model in MLflow's Keras flavour, with signature and pinned requirements: MLflow need not guess them."""
    import_tensorflow()
    import keras
    import mlflow.keras
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    schemas = [
        Schema([TensorSpec(np.dtype(str(tensor.dtype)), (-1, *tensor.shape[1:]))])
        for tensor in (model.inputs[0], model.outputs[0])
    ]
    installed = {package.name.replace("_", "-"): package.version for package in distributions()}
    needed = [name for name in ("tensorflow-cpu", "tensorflow", "keras", "numpy", "mlflow") if name in installed]
    with warnings.catch_warnings(), mlflow.start_run(run_id):
        warnings.simplefilter("ignore")
        mlflow.keras.log_model(
            model,
            name=record.name,
            signature=ModelSignature(inputs=schemas[0], outputs=schemas[1]),
            pip_requirements=[f"{name}=={installed[name]}" for name in needed],
            tags={"model_md5": record.model},
        )


def _tags(stage: str) -> dict[str, str]:
    """Where a run comes from: stage, DVC experiment and its baseline, Git commit; what is unknown is left out."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    tags = {
        "stage": stage,
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
        "dvc_baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": stage,
    }
    return {key: value for key, value in tags.items() if value}


def _dataset(name: str) -> dict[str, str]:
    """Name and DVC hash of the records; nothing where no dvc.lock tells it."""
    lock = Path("dvc.lock")
    stages = yaml.load(lock.read_text(), yaml.CSafeLoader)["stages"] if lock.exists() else {}
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    digest = outs.get(f"data/records/{name}")
    return {"name": name, "digest": digest} if digest else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Params by dotted keys, as text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _write(record: Record) -> None:
    with replacing(UNSENT / record.id / "record.json") as part:
        part.write_text(json.dumps(asdict(record), indent=1))


def _sent(folder: Path, record: Record) -> bool:
    """Send a record, or say once why it is not sent: whatever the reason, it must not cost a stage."""
    try:
        send(folder, record)
    except Exception as error:
        print(f"warning: {_failure(error)}; what it has not taken is kept; `{SYNC}` sends it later", flush=True)
        return False
    return True


def _records() -> dict[Path, Record]:
    """What is kept, by its folder."""
    return {path.parent: Record(**json.loads(path.read_text())) for path in UNSENT.glob("*/record.json")}


def _failure(error: Exception) -> str:
    """Where MLflow is, and the first line of its error, short."""
    message = next(iter(_masked(str(error)).strip().splitlines()), "")[:200]
    return f"MLflow at {_masked(uri())}: {type(error).__name__}" + (f": {message}" if message else "")


def _masked(text: str) -> str:
    """Without the users and passwords of its URLs."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as part:  # which names the target where its disk is full
        shutil.copyfile(source, part)


def _now() -> int:
    return time.time_ns() // 1_000_000


def main(command: str) -> None:
    """`sync` or `runs`."""
    commands = {"sync": sync, "runs": runs}
    if command not in commands:
        raise UserError(f"{command}: no such command; `sync` sends what is kept, `runs` lists the runs of the models")
    commands[command]()


if __name__ == "__main__":
    run(main, "command")
