"""`python -m tools.release.sync`: log the models and results of the workspace that MLflow does not have."""

from stages.config import params
from stages.runtime import dvc_lock
from stages.runtime.cli import run
from stages.runtime.errors import UserError, mask_urls
from stages.tracking import runs, server
from stages.tracking.sync import MissingOutputError, TrainedModel


def sync() -> None:
    """Log each trained model of params.yaml whose run or whose results MLflow lacks.

    Raises:
        UserError: MLflow does not answer, or refused something; everything else is logged.
    """
    logged, refused = list[str](), list[str]()
    stages = dvc_lock.read().get("stages", {})
    with server.required() as client:
        for model in (TrainedModel(name, stages) for name in params.load().models):
            if not model.model_md5:
                continue
            try:
                is_new = runs.trained_by(client, model.model_md5) is None
                if model.log_evaluation(client, model.log_run(client)) or is_new:
                    logged.append(model.name)
            except MissingOutputError as error:
                print(f"not logged: {model.name} ({error})")
            except Exception as error:
                refused.append(f"{model.name}: {server.failure(error)}")
    print(f"MLflow at {mask_urls(server.uri())}: logged {', '.join(logged) or 'nothing new'}")
    if refused:
        raise UserError(f"not logged: {'; '.join(refused)}")


if __name__ == "__main__":
    run(sync)
