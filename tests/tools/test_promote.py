"""`make promote` with a real MLflow store and real Git tags."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.config import params
from stages.prediction.saved_model import save
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from stages.tracking import logger, server
from tests.conftest import commit, run, write_params
from tests.tools.fake_pipeline import fake_repository, reproduce, write_fake_params
from tools.release.promote import _results, counts, promote

NAME = "mnist_dense"
SIGNATURE = {
    "dataset": "mnist",
    "classes": ["a", "b"],
    "image_size": 28,
    "channels": 1,
    "test_time": None,
    "backbone": None,
}


def published(values: Any) -> None:
    """The gate judges only what is not synthetic; nothing is downloaded here."""
    for dataset in values["datasets"].values():
        dataset["synthetic"] = None


def train(folder: Path, units: int, is_logged: bool = True) -> None:
    """Give the fake model of `folder` a real file, and MLflow the run that trained it, as `train` does."""
    import keras

    model = keras.Sequential([keras.Input((4,), dtype="uint8"), keras.layers.Dense(units, activation="softmax")])
    save(model, paths.model(NAME), SIGNATURE)
    paths.environment("train", NAME).write_text(
        json.dumps({"threads": "4", "processor": "a", "compute_dtype": "float32"}), encoding="utf-8"
    )
    assert run(folder, "dvc", "commit", "-q", "-f", f"train@{NAME}").returncode == 0
    if is_logged:
        config = params.load().resolved_models[NAME]
        with logger.training(NAME, config, {}, str(folder / f"checkpoint-{units}")) as run_logger:
            run_logger.log_model(paths.model(NAME))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = fake_repository(tmp_path_factory.mktemp("repository"), published)
    for key, value in (("user.name", "test"), ("user.email", "test@example.com")):
        assert run(folder, "git", "config", key, value).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def tags(folder: Path) -> list[str]:
    listed = run(folder, "git", "for-each-ref", "--format=%(refname:short) %(objecttype)", "refs/tags").stdout
    return sorted(line.removesuffix(" tag") for line in listed.splitlines())  # an annotated tag is a tag


def test_promotion_registers_tags_and_describes_the_champion(
    repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import mlflow

    train(repository, 2)
    with pytest.raises(UserError, match=r"not the model of dvc\.lock in HEAD; commit dvc\.lock and reports/"):
        promote(NAME, "")
    commit(repository, "train")
    client = server.connect()
    other = client.create_experiment("another dataset")
    client.delete_experiment(other)  # only the run of this model matters
    promote(NAME, "")
    assert "gate passed; judged: mnist_dense" in capsys.readouterr().out
    assert tags(repository) == [f"{NAME}#champion#1", f"{NAME}@v1.0.0"]
    got = run(repository, "dvc", "artifacts", "get", ".", NAME, "--stage", "champion", "--out", str(tmp_path / "got"))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "got").read_bytes() == paths.model(NAME).read_bytes()
    assert run(repository, "dvc", "status", f"evaluate@{NAME}").stdout == "Data and pipelines are up to date.\n"
    card = (repository / f"reports/cards/{NAME}.md").read_text(encoding="utf-8")
    head = run(repository, "git", "rev-parse", "HEAD").stdout.strip()
    md5 = file_hash(paths.model(NAME), "md5")
    for text in (
        f"# {NAME} v1.0.0",
        head,
        md5,
        "| validation accuracy | 90.00% |",
        "| a | 1.0 |",
        "Gate passed; judged",
    ):
        assert text in card
    assert "images, uint8, in the size of the dataset's, " in card
    assert " pixels high (of another shape, the middle is cut out), and returns a probability for each of: " in card
    assert "The class “NA” is found least often: recall 50.00%, 4 test images." in card
    commit(repository, "card")
    promote(NAME, "")  # the same model: nothing is new, although HEAD is
    assert tags(repository) == [f"{NAME}#champion#1", f"{NAME}@v1.0.0"]
    assert (repository / f"reports/cards/{NAME}.md").read_text(encoding="utf-8") == card

    train(repository, 3)
    (repository / "reports/audit").mkdir()
    (repository / "reports/audit/mnist.json").write_text(
        json.dumps({"near_duplicates": {"test": 17}}), encoding="utf-8"
    )
    commit(repository, "another model")
    promote(NAME, "")
    expected = [f"{NAME}#champion#1", f"{NAME}#champion#2", f"{NAME}@v1.0.0", f"{NAME}@v1.1.0"]
    assert tags(repository) == expected
    assert "| near_duplicates.test | 17 |" in (repository / f"reports/cards/{NAME}.md").read_text(encoding="utf-8")
    version = mlflow.MlflowClient(server.uri()).get_model_version_by_alias(NAME, "champion")
    assert (str(version.version), version.tags["git_tag"]) == ("2", f"{NAME}@v1.1.0")


def test_model_that_the_gate_does_not_pass_is_promoted_by_force_alone(repository: Path) -> None:
    def worse(values: Any) -> None:
        published(values)
        values["models"][NAME]["learning_rate"] = 0.005

    write_fake_params(repository, worse)
    reproduce(repository)
    train(repository, 4, is_logged=False)  # by DVC's cache, or while MLflow was away: it gets a run from its files
    commit(repository, "a worse model")
    before = tags(repository)
    with pytest.raises(UserError, match=f"{NAME}: not promoted: gate failed; judged: {NAME}.*; FORCE=1 promotes it"):
        promote(NAME, "")
    assert tags(repository) == before
    promote(NAME, "1")
    assert len(tags(repository)) == len(before) + 2
    assert "Promoted by force: gate failed" in (repository / f"reports/cards/{NAME}.md").read_text(encoding="utf-8")


def test_promotion_in_a_deleted_experiment_says_how_to_restore_it(repository: Path) -> None:
    client = server.connect()
    (experiment,) = client.search_experiments(filter_string="name = 'mnist'")
    client.delete_experiment(experiment.experiment_id)
    restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
    with pytest.raises(UserError, match=f"the experiment 'mnist' was deleted; `{restore}` brings it back"):
        promote(NAME, "1")
    client.restore_experiment(experiment.experiment_id)


def test_promote_says_the_reason_and_does_not_alarm(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On synthetic data there is nothing to judge; a problem comes before the judgement; a name is asked for."""
    with pytest.raises(UserError, match=r"^no name is given; name one of models in params\.yaml: fashion_mnist_lene"):
        promote("", "1")
    write_fake_params(repository)  # synthetic
    with pytest.raises(UserError, match="mnist_cnn: not promoted: nothing to judge; not judged, synthetic data: mnist"):
        promote("mnist_cnn", "")
    paths.model("mnist_cnn").write_text("other", encoding="utf-8")
    with pytest.raises(UserError, match=r"mnist_cnn\.keras: not the model of dvc\.lock in HEAD"):
        promote("mnist_cnn", "1")
    assert "judge" not in capsys.readouterr().out


def test_each_result_of_a_card_says_of_how_many_images() -> None:
    found = {"images": 200, "accuracy": 0.9, "accuracy_low": 0.8, "answered": 0.5, "answered_accuracy": 0.99}
    found |= {"not_in_pretraining_images": 20, "not_in_pretraining_accuracy": 0.85}
    assert [(name, images) for name, _, _, images in _results(found)] == [
        ("test accuracy", 200),
        ("test answered", 200),
        ("test answered accuracy", 100),
        ("test not in pretraining accuracy", 20),
    ]


def test_missing_counts_of_ones_own_images_name_their_stage(project: Path) -> None:
    entry = {"path": "../pets", "classes": ["cat", "dog"], "test_fraction": 0.2}
    write_params(project, lambda values: values.update(folders={"pets": entry}))
    with pytest.raises(UserError, match=r"data/counts/pets\.json: missing; run `dvc repro preprocess_folder@pets`"):
        counts(params.load(), "pets")
