"""One MLflow run that the trainings of a search are nested under."""

from collections.abc import Mapping
from contextlib import suppress

from stages.tracking import runs, server

VARIABLE = "MLFLOW_PARENT_RUN_ID"  # in the environment of the trainings


def start(experiment: str, name: str, known: str | None) -> str | None:
    """Start a run in an experiment, or continue the run `known`; None with a warning if MLflow does not answer."""
    try:
        client = server.connect()
        if known:
            with suppress(Exception):  # it was removed, or is on another server
                client.update_run(known, "RUNNING")
                client.set_tag(known, "process", runs.process())
                return known
        tags = {"mlflow.source.name": name, "process": runs.process()}
        return str(client.create_run(server.experiment_id(client, experiment), tags=tags, run_name=name).info.run_id)
    except Exception as error:  # whatever it is, it must not stop a search
        print(f"warning: {server.failure(error)}; the trainings will not be nested under one run", flush=True)
        return None


def end(run_id: str, status: str, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
    """End a run with what it found; only a warning if MLflow does not answer. `status` is one of MLflow's."""
    try:
        client = server.connect()
        for key, value in params.items():
            client.set_tag(run_id, key, str(value))  # params cannot be changed when a search goes on
        for key, number in metrics.items():
            client.log_metric(run_id, key, number)
        client.set_terminated(run_id, status)
    except Exception as error:
        print(f"warning: {server.failure(error)}; the run of the search is not up to date", flush=True)
