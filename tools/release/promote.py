"""`make promote MODEL=mnist_dense`: make a model that passes the gate the champion, for everyone who uses models.

MLflow's registry has the alias `champion`, Git has GTO's tags, and reports/cards/NAME.md is the model card.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gto.api
import jinja2
from gto.exceptions import GTOException
from ruamel.yaml import YAML

from stages.config import params
from stages.config.flatten import flatten
from stages.config.messages import lookup
from stages.config.schema import Params
from stages.evaluation.metrics import wilson
from stages.plots import classes
from stages.prediction.saved_model import read_signature
from stages.reporting.environments import describe
from stages.reporting.markdown import table
from stages.reporting.results import plot_table
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash, open_input
from stages.tracking import server
from stages.tracking.sync import TrainedModel
from tools.compare.gate import judge
from tools.lib.git import git, read_files
from tools.lib.lock_entries import split
from tools.lib.revision import Revision

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ALIAS = "champion"
CARDS = Path("reports/cards")
PIPELINE = Path("dvc.yaml")
FIRST = "v1.0.0"
UNCALIBRATED = 0.05  # expected calibration error from which the card warns
COUNTS = {"images", "validation_images", "not_in_pretraining_images"}
NO_RESULTS = {"accuracy_low", "accuracy_high", "parameters", "epochs", "compute_dtype"} | COUNTS


def promote(name: str, force: str) -> None:
    """Promote data/models/NAME.keras as it is committed in dvc.lock. Doing it twice changes nothing.

    Args:
        name: the model.
        force: "1" promotes a model that the gate did not judge, or that did not pass; anything else does not.

    Raises:
        UserError: the gate does not pass, the model is not the committed one, or MLflow does not answer.
    """
    values = params.load()
    lookup(values.models, name, "models")
    md5 = _committed(name)
    workspace = Revision()
    if name not in workspace.trainings:
        raise UserError(f"{name}: its metrics are not those of the model in dvc.lock; run `dvc repro evaluate@{name}`")
    champion = _champion(name)
    before = Revision(_commit(champion), name="the champion") if champion else Revision("HEAD")
    passed, said = judge(before, workspace, name)
    if not passed and force != "1":
        print(*said[:-1], sep="\n", end="\n" * (len(said) > 1))
        raise UserError(f"{name}: not promoted: {said[-1]}; FORCE=1 promotes it nevertheless")
    with server.required() as client:  # before there is a tag
        trained_by = TrainedModel(name, workspace.stages).log_run(client)
    print(*said, sep="\n")
    gate = said[-1] if passed else f"promoted by force: {said[-1]}"
    tag, commit = _register(name, md5, gate)
    with server.required() as client:
        facts = {"git_tag": tag, "git_commit": commit, "gate": gate}
        version = _register_in_mlflow(client, name, trained_by, md5, facts)
    path = CARDS / f"{name}.md"
    provenance = [
        ["Git", f"{tag}, commit {commit}"],
        ["MLflow", f"version {version} of {name}, run {trained_by.info.run_id}"],
        ["Model file", f"MD5 {md5}"],
    ]
    _write(path, _card(values, name, workspace, tag, gate, provenance))
    assigned = _assign(name, tag)
    print(f"{name}: champion is version {version} in MLflow, {tag} and {assigned} in Git, {path}")
    print(f"To share it: git add {path} && git commit, then git push origin '{tag}' '{assigned}'")


def _committed(name: str) -> str:
    """The MD5 of a model file, which has to be that of dvc.lock in HEAD."""
    path = paths.model(name)
    if not path.exists():
        raise UserError(f"{path}: missing; run `dvc repro evaluate@{name}` or `dvc pull`")
    md5 = file_hash(path, "md5")
    if _locked("HEAD", name) != md5:
        raise UserError(
            f"{path}: not the model of {paths.LOCK} in HEAD; commit {paths.LOCK} and reports/, or restore both"
        )
    if git("status", "--porcelain", "--", str(paths.metrics(name))):
        raise UserError(f"{paths.metrics(name)}: not committed; a tag would name other metrics than the card")
    return md5


def _locked(rev: str, name: str) -> str | None:
    """The MD5 of a model file in the dvc.lock of a revision."""
    entry = split(read_files(rev, [paths.LOCK]).get(paths.LOCK, ""))[1].get(f"train@{name}", f"train@{name}: {{}}")
    outs = YAML(typ="safe").load(entry)[f"train@{name}"].get("outs", [])
    return next((out.get("md5") for out in outs if out["path"] == paths.model(name).as_posix()), None)


def _register(name: str, md5: str, gate: str) -> tuple[str, str]:
    """The tag and the commit that register this file as a version; new ones unless it was registered before."""
    tags = _tags(f"{name}@v*")
    for tag in tags:
        if _locked(tag, name) == md5:
            return tag, _commit(tag)
    _add_artifact(name)
    version: dict[str, Any] = {"bump_minor": True} if tags else {"version": FIRST}
    return _make_tag(gto.api.register, name, "HEAD", message=gate, **version), _commit("HEAD")


def _register_in_mlflow(client: "MlflowClient", name: str, run: "Run", md5: str, tags: Mapping[str, str]) -> str:
    """Make the model file the champion of MLflow's registry, and return its version: of a known file, the old one."""
    found = {version.tags.get("model_md5"): version for version in client.search_model_versions(f"name='{name}'")}
    version = found.get(md5)
    if version is None:
        assert run.outputs  # `runs.log_model` logged the model
        model_id = run.outputs.model_outputs[0].model_id
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        # MLflow's own copy of a model lacks the signature, and has other bytes
        client.log_artifact(run.info.run_id, str(paths.model(name)), "promoted")
        version = client.create_model_version(
            name, f"models:/{model_id}", run.info.run_id, tags={"model_md5": md5}, model_id=model_id
        )
    for key, value in tags.items():
        client.set_model_version_tag(name, version.version, key, value)
    client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)


def _add_artifact(name: str) -> None:
    """Commit the entry of dvc.yaml that `dvc artifacts get` looks up in the commit of a tag, unless HEAD has it."""
    if name in (YAML(typ="safe").load(git("show", f"HEAD:./{PIPELINE}")).get("artifacts") or {}):
        return
    if git("status", "--porcelain", "--", PIPELINE):
        raise UserError(f"{PIPELINE}: not committed; commit it or restore it: promotion adds an entry and commits that")
    before = PIPELINE.read_text(encoding="utf-8")
    entry = f"  {name}: {{path: {paths.model(name)}, type: model}}\n"
    text, found = re.subn("^artifacts:.*\n", lambda line: line[0] + entry, before, count=1, flags=re.MULTILINE)
    _write(PIPELINE, text if found else f"{before}\nartifacts:  # promoted models, for `dvc artifacts get`\n{entry}")
    try:
        git("commit", "--quiet", "--message", f"dvc.yaml: {name} is an artifact", "--", PIPELINE)
    except UserError:
        _write(PIPELINE, before)
        raise


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _assign(name: str, tag: str) -> str:
    """The tag that makes a version the champion; a new one unless it is that already."""
    champion = _champion(name)
    if champion and _commit(champion) == _commit(tag):
        return champion
    # By force: a version that was the champion before may be it again
    return _make_tag(gto.api.assign, name, ALIAS, version=tag.rpartition("@")[2], force=True)


def _make_tag(create: Callable[..., Any], name: str, *arguments: str, **options: Any) -> str:
    """Make a tag of a model by a function of GTO; return its name."""
    try:
        return str(create(git("rev-parse", "--show-toplevel"), name, *arguments, **options).tag)
    except (GTOException, OSError) as error:
        raise UserError(f"git tag of {name}: {' '.join(str(error).split())}") from None


def _tags(pattern: str) -> list[str]:
    """The tags that match a pattern, newest version first."""
    return git("tag", "--list", pattern, "--sort=-v:refname").split()


def _champion(name: str) -> str:
    """The tag that made a version the champion last; empty if there is none."""
    return next(iter(_tags(f"{name}#{ALIAS}#*")), "")


def _commit(rev: str) -> str:
    return git("rev-parse", f"{rev}^{{commit}}")


def _card(values: Params, name: str, workspace: Revision, tag: str, gate: str, provenance: list[list[str]]) -> str:
    """The model card in Markdown: how to use a model, how good it is, what it was made from, and its limits.

    The same promotion gives the same text.
    """
    metrics, training, dataset = workspace.metrics[name], workspace.trainings[name], values.image_dataset(name)
    with open_input(paths.environment("train", name), f"train@{name}") as file:
        computed_with = describe(json.load(file))
    signature = read_signature(paths.model(name))
    scores = plot_table("classes", classes, name)
    audit = paths.audit_metrics(dataset)
    given = {key: value for key, value in flatten(training.params).items() if value is not None}
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("model_card.md.j2").render(
        name=name,
        tag=tag,
        gate=gate,
        model=values.resolved_models[name],
        metrics=metrics,
        signature=signature,
        dataset=dataset,
        synthetic=values.is_model_synthetic(name),
        scores=scores,
        pretrained=values.model_features(name) is not None,
        worst=scores[scores["images"] > 0].sort_values("recall", kind="stable").iloc[0],
        counts=counts(values, dataset),
        audit=flatten(json.loads(audit.read_text(encoding="utf-8"))) if audit.exists() else {},
        given={**given, "seed": training.seed},
        results=_results(metrics),
        provenance=[
            *provenance,
            ["Computed with", computed_with],
            *([f"`{path}`", f"MD5 {md5}"] for path, md5 in sorted(training.deps.items())),
        ],
        uncalibrated=UNCALIBRATED,
        table=table,
    )


def counts(values: Params, dataset: str) -> dict[str, dict[str, int]]:
    """The images of each class of each split of a dataset."""
    with open_input(paths.counts(dataset), values.preprocess_stage(dataset)) as file:
        found: dict[str, dict[str, int]] = json.load(file)
    return found


def _results(metrics: dict[str, Any]) -> list[list[Any]]:
    """A row for each metric: name, value, interval, images."""
    counted = {
        "validation_accuracy": metrics.get("validation_images"),
        "not_in_pretraining_accuracy": metrics.get("not_in_pretraining_images"),
        "answered_accuracy": round(metrics.get("answered", 0) * metrics["images"]),
    }
    rows = []
    found = {key: value for key, value in metrics.items() if key not in NO_RESULTS}
    for key, value in sorted(found.items(), key=lambda item: not item[0].startswith("validation")):
        images = counted.get(key, metrics["images"])
        interval = "{:.2%} – {:.2%}".format(*wilson(value, images)) if "accuracy" in key else ""
        title = key if key.startswith("validation") else f"test {key}"
        rows.append([title.replace("_", " "), f"{value:.2%}" if interval else value, interval, images])
    return rows


if __name__ == "__main__":
    run(promote, "model", "force")
