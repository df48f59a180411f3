"""A revision of the repository, or the workspace: its files from Git, from DVC's cache or from a remote."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.evaluation.predictions import Predictions, parse
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import PARSE_ERRORS
from tools.machine import describe

ABSENT = "–"  # in a cell without a value


@dataclass(frozen=True)
class Training:
    """A trained and evaluated model in dvc.lock.

    seed: of the training. params: all other params of the stage. deps: hash of each module and folder that it read.
    metrics: of the trained model.
    """

    seed: int
    params: dict[str, Any]
    deps: dict[str, str]
    metrics: dict[str, Any]

    def changes(self, base: "Training") -> str:
        """The differences from another training without the seed: `epochs=3 train.batch_size=64 code`."""
        found = [f"{key}={value}" for key, _, value in differences(base.params, self.params)]
        changed = {path for path in {**base.deps, **self.deps} if base.deps.get(path) != self.deps.get(path)}
        found += ["data"] if any(path.startswith("data/") for path in changed) else []
        found += ["code"] if any(path.startswith("stages/") for path in changed) else []
        return " ".join(found)


class Revision:
    """Params, locks, metrics and predictions of one revision.

    If `make base` or `make real` has reproduced the revision on this machine, they are those of the reproduction. None
    of them is checked: a revision may be older than the schema of params.yaml.
    """

    def __init__(self, rev: str | None = None, source: str | None = None, name: str | None = None) -> None:
        """Find the revision.

        Args:
            rev: a branch, tag, commit or DVC experiment; None for the workspace.
            source: read the reproduction with this value of `source` in params.yaml.
            name: what to call the revision; None for `rev`.

        Raises:
            UserError: there is no such revision or reproduction, or no DVC repository.
        """
        if rev == "":
            raise UserError("the revision: empty; name a branch, tag, commit or experiment")
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.repo.brancher import switch
        from dvc.scm import resolve_rev

        self.name = name or rev or "workspace"
        self.reproduced_on = ""  # the machine; empty if `rev` was not reproduced
        try:
            repo = Repo()
            commit = resolve_rev(repo.scm, rev) if rev else str(repo.get_rev())
            if rev:
                content = repo.scm.get_ref(reference(commit, source))
                if content:
                    self.reproduced_on = repo.scm.resolve_commit(content).message.partition("\n")[0]
                elif source:
                    raise UserError(f"{self.name}: not reproduced with source {source}; run `make real`")
                # Unlike Repo(rev=...), this finds a project in a subfolder of a Git repository. It holds while the
                # context manager lives.
                self._switch = switch(repo, content or commit)
                self._switch.__enter__()
        except DvcException as error:
            raise UserError(f"{self.name}: {error}; fetch it, or name another revision") from None
        self.commit = commit
        self._files = repo.dvcfs

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml; empty if there is none."""
        return self._yaml(paths.PARAMS)

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The stages of dvc.lock: their last params, deps and outputs."""
        return self._yaml(paths.LOCK).get("stages", {})

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of each evaluated model, in the order of params.yaml."""
        found = {name: self._text(paths.metrics(name)) for name in self.params.get("models", {})}
        try:
            return {name: json.loads(text) for name, text in found.items() if text is not None}
        except json.JSONDecodeError as error:
            raise UserError(f"{self.name}: reports/metrics: not JSON: {error}; run `dvc repro`") from None

    @cached_property
    def machine(self) -> str:
        """Where the evaluated models were trained, as recorded beside them."""
        texts = filter(None, (self._output(paths.environment("train", name)) for name in self.metrics))
        found = dict.fromkeys(describe(json.loads(text)) for text in texts)
        return " and ".join(found) or self.reproduced_on or "an unknown machine"

    def training(self, model: str) -> Training | None:
        """How a model was trained; None if the metrics are missing or belong to another training."""
        train, evaluate = self.stages.get(f"train@{model}"), self.stages.get(f"evaluate@{model}")
        if not train or not evaluate or model not in self.metrics:
            return None
        made = {out["path"]: out["md5"] for out in train["outs"]}
        if any(made.get(dep["path"], dep["md5"]) != dep["md5"] for dep in evaluate["deps"]):
            return None
        values = dict(train["params"]["params.yaml"])
        return Training(
            seed=values.pop("seed"),
            params={"train": values.get("train"), **values.get(f"models.{model}", {})},
            deps={dep["path"]: dep["md5"] for dep in train["deps"]},
            metrics=self.metrics[model],
        )

    def validation_images(self, model: str) -> int | None:
        """The number of validation images of a model; None in the metrics of an older version."""
        found: int | None = self.metrics[model].get("validation_images")
        return found

    def predictions(self, model: str) -> Predictions | None:
        """The predictions of a model; None if neither the cache nor a remote has them in today's format."""
        content = self._output(paths.predictions(model))
        try:
            return parse(io.BytesIO(content)) if content is not None else None
        except PARSE_ERRORS:
            return None

    def _output(self, path: Path) -> bytes | None:
        """The content of an output; None if neither the cache nor a remote has it."""
        try:
            return self._files.read_bytes(path.as_posix())
        except Exception:  # each kind of remote has its own errors: no file, no credentials, no network
            return None

    def _yaml(self, path: Path) -> dict[str, Any]:
        return YAML(typ="safe").load(self._text(path) or "") or {}

    def _text(self, path: Path) -> str | None:
        try:
            return self._files.read_text(path.as_posix())
        except FileNotFoundError:
            return None


def reference(commit: str, source: str | None = None) -> str:
    """The Git reference that `tools.base` gives to the reproduction of a commit. Git does not push it by default."""
    return f"refs/reproduced/{commit}{f'-{source}' if source else ''}"


def experiments() -> Iterator[tuple[str, str, str]]:
    """Name, revision and state of each DVC experiment of HEAD; the state of a finished one is empty."""
    from dvc.api import exp_show

    for row in exp_show():
        if row["Experiment"]:
            yield row["Experiment"], row["rev"], "" if row["State"] in (None, "Success") else row["State"].lower()


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted key, value before and value after of each difference; a new or removed entry is one difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            inner = f"{key}.{name}" if key else str(name)
            if name not in before or name not in after:
                yield inner, _value(before, name), _value(after, name)
            else:
                yield from differences(before[name], after[name], inner)
    elif before != after:
        yield key, json.dumps(before), json.dumps(after)


def points(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The change of the validation accuracy in percentage points."""
    return f"{100 * (after['validation_accuracy'] - before['validation_accuracy']):+.2f}".replace("-", "−")


def _value(section: dict[str, Any], name: str) -> str:
    return json.dumps(section[name]) if name in section else ABSENT
