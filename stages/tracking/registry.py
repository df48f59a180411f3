"""MLflow's model registry: the version of a model that is its champion."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash
from stages.tracking import server

if TYPE_CHECKING:
    from mlflow.entities import Run

ALIAS = "champion"
FOLDER = "promoted"  # of the run's artifacts: MLflow's own copy of a model lacks the signature, and has other bytes


class Champion(NamedTuple):
    """A registered version of a model."""

    name: str
    version: str
    run_id: str
    model_md5: str


def promote(name: str, run: "Run", path: Path, tags: Mapping[str, str]) -> Champion:
    """Make a model file the champion; a file that was registered before keeps its version.

    Args:
        name: the model, and what it is called in the registry.
        run: the run that trained it.
        path: the model file.
        tags: tags of the version.

    Raises:
        UserError: MLflow does not answer.
    """
    md5, run_id = file_hash(path, "md5"), run.info.run_id
    try:
        client = server.connect()
        found = {version.tags.get("model_md5"): version for version in client.search_model_versions(f"name='{name}'")}
        version = found.get(md5)
        if version is None:
            assert run.outputs  # `runs.log_model` logged the model
            model_id = run.outputs.model_outputs[0].model_id
            if not client.search_registered_models(f"name='{name}'"):
                client.create_registered_model(name)
            client.log_artifact(run_id, str(path), FOLDER)
            version = client.create_model_version(
                name, f"models:/{model_id}", run_id, tags={"model_md5": md5}, model_id=model_id
            )
        for key, value in tags.items():
            client.set_model_version_tag(name, version.version, key, value)
        client.set_registered_model_alias(name, ALIAS, version.version)
    except Exception as error:
        raise server.strict(error) from None
    return Champion(name, str(version.version), run_id, md5)


def champions() -> list[Champion]:
    """The champion of each model that has one; a `UserError` if MLflow does not answer."""
    try:
        client = server.connect()
        found = []
        for model in client.search_registered_models(max_results=1000):
            if ALIAS in model.aliases:
                version = client.get_model_version_by_alias(model.name, ALIAS)
                found.append(
                    Champion(model.name, str(version.version), version.run_id or "", version.tags.get("model_md5", ""))
                )
    except Exception as error:
        raise server.strict(error) from None
    return found


def download(champion: Champion, target: Path) -> None:
    """Write a champion's model file to `target`; a `UserError` if MLflow does not have it."""
    import mlflow

    try:
        server.connect()
        source = f"runs:/{champion.run_id}/{FOLDER}/{champion.name}.keras"
        with atomic_write(target) as part:
            # A file beside the target, of the artifact's name
            Path(mlflow.artifacts.download_artifacts(source, dst_path=str(target.parent))).replace(part)
            if file_hash(part, "md5") != champion.model_md5:
                raise ValueError("the file has other bytes than the model that was promoted")
    except Exception as error:
        raise UserError(f"{champion.name}@{ALIAS}: {server.failure(error)}; promote the model again") from None
