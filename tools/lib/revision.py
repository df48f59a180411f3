"""A revision of the repository, or the workspace: its files from Git, from DVC's cache or from a remote."""

import io
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.reporting.environments import describe
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import PARSE_ERRORS
from tools.lib import git, lock_entries

if TYPE_CHECKING:
    from stages.evaluation.predictions import Predictions

ABSENT = "–"  # in a cell without a value
REPRODUCED = "refs/reproduced"  # Git does not push these by default


@dataclass(frozen=True)
class Training:
    """A trained and evaluated model in dvc.lock; `params` without the seed; `deps` are the hashes of what it read.

    The network of a fine-tuned model contains its head, whose bytes depend on the seed. So `sources` has what both were
    made from in place of its hash, again without the seed.
    """

    seed: int
    params: dict[str, Any]
    deps: dict[str, str]
    sources: dict[str, str] = field(compare=False)
    metrics: dict[str, Any]

    def changes(self, base: "Training") -> str:
        """The differences from another training without the seed: `epochs=3 train.batch_size=64 code`."""
        found = [f"{key}={value}" for key, _, value in differences(base.params, self.params)]
        changed = {path.partition("/")[0] for path, _ in self.sources.items() ^ base.sources.items()}
        return " ".join(found + [what for what, folder in (("data", "data"), ("code", "stages")) if folder in changed])


class Revision:
    """Params, locks, metrics and predictions of a revision: of its reproduction on this machine if there is one.

    None of them is checked: a revision may be older than the schema of params.yaml.
    """

    def __init__(self, rev: str | None = None, source: str | None = None, name: str | None = None) -> None:
        """Find a branch, tag, commit or DVC experiment, reproduced with this `source` if given; None: the workspace."""
        self.name = name or rev or "workspace"
        self.reproduced_on = ""  # the machine; empty if the revision was not reproduced
        self.commit = self.ref = ""  # what the revision is, and what Git and DVC call it
        self._files = ""  # the commit that files are read from; empty: the work tree
        if rev is None:
            return
        self.ref = rev
        for known in (rev, *(found.ref for found in git.experiments(rev) if found.name == rev)):
            self.commit = self.commit or _commit(known)
        if not self.commit:
            raise UserError(f"{rev!r}: no such revision; fetch it, or name a branch, tag, commit or experiment")
        if reproduction := _commit(reference(self.commit, source)):
            self.ref = reference(self.commit, source)
            self.reproduced_on = git.git("log", "-1", "--format=%s", reproduction)
        self._files = reproduction or self.commit

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml; empty if there is none."""
        return self._parse(paths.PARAMS, self._read([paths.PARAMS]).get(paths.PARAMS, ""))

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The stages of dvc.lock: their last params, deps and outputs."""
        head, entries, tail = lock_entries.split(self._read([paths.LOCK]).get(paths.LOCK, ""))
        self._parse(paths.LOCK, head + tail)  # an error if it has the marks of a merge
        return {name: self._parse(paths.LOCK, entry)[name] for name, entry in entries.items()}

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of each evaluated model, by name, without those of an older version."""
        files = self._read(paths.metrics(name) for name in sorted(self.params.get("models", {})))
        found = {path.stem: self._parse(path, text) for path, text in files.items()}
        return {name: values for name, values in found.items() if "images" in values}

    @cached_property
    def machine(self) -> str:
        """Where the evaluated models were trained, as recorded beside them."""
        texts = filter(None, (self._output(paths.environment("train", name)) for name in self.metrics))
        found = dict.fromkeys(describe(json.loads(text)) for text in texts)
        return " and ".join(found) or self.reproduced_on or "an unknown machine"

    @cached_property
    def unevaluated(self) -> list[str]:
        """Models without metrics that should have some: a reproduction holds the models that were asked for."""
        return [name for name in self.params.get("models", {}) if name not in self.metrics and not self.reproduced_on]

    @cached_property
    def trainings(self) -> dict[str, Training]:
        """How each evaluated model was trained, without models whose metrics belong to another training."""
        found = {}
        for model, metrics in self.metrics.items():
            train, evaluate = (self.stages.get(f"{stage}@{model}") for stage in ("train", "evaluate"))
            if not train or not evaluate:
                continue
            made = {out["path"]: out["md5"] for out in train["outs"]}
            if all(made.get(dep["path"], dep["md5"]) == dep["md5"] for dep in evaluate["deps"]):
                values = dict(train["params"]["params.yaml"])
                seed, general = values.pop("seed"), values.get("train")
                deps = {dep["path"]: dep["md5"] for dep in train["deps"]}
                params = {"train": general, **values.get(f"models.{model}", {})}
                found[model] = Training(seed, params, deps, self._sources(train), metrics)
        return found

    def _sources(self, stage: dict[str, Any]) -> dict[str, str]:
        """The hashes of what a stage read; of a network and its head, what they were made from without the seed."""
        found = {dep["path"]: dep["md5"] for dep in stage["deps"]}
        for path, md5 in found.items():
            if maker := self._makers.get((path, md5)):
                params = {key: value for key, value in maker["params"]["params.yaml"].items() if key != "seed"}
                found[path] = json.dumps([params, self._sources(maker)], sort_keys=True)
        return found

    @cached_property
    def _makers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The stages that make heads and networks, by the paths and hashes of what they made."""
        makers = [stage for name, stage in self.stages.items() if name.startswith(("train@", "join@"))]
        return {(out["path"], out["md5"]): stage for stage in makers for out in stage["outs"]}

    def accuracy(self, model: str) -> tuple[float, int]:
        """The validation accuracy of an evaluated model, and its number of images; (0, 0) if none validated it."""
        metrics = self.metrics[model]
        return metrics.get("validation_accuracy", 0.0), metrics.get("validation_images", 0)

    def predictions(self, model: str) -> "Predictions":
        """The predictions of a model.

        Raises:
            Untestable: neither the cache nor a remote has them in today's format.
        """
        from stages.evaluation.predictions import parse
        from tools.lib.significance import Untestable

        try:
            return parse(io.BytesIO(self._output(paths.predictions(model)) or b""))
        except PARSE_ERRORS:
            raise Untestable(f"no predictions of {self.name} in the cache or a remote") from None

    def _output(self, path: Path) -> bytes | None:
        """The content of an output; None if neither the cache nor a remote has it."""
        try:
            return self._outputs.read_bytes(path.as_posix())
        except Exception:  # each kind of remote has its own errors: no file, no credentials, no network
            return None

    @cached_property
    def _outputs(self) -> Any:
        """The files of the revision as DVC sees them. DVC is imported only for these: that takes a second."""
        from dvc.repo import Repo
        from dvc.repo.brancher import switch

        repo = Repo()
        if self._files:
            # Unlike Repo(rev=...), this finds a project in a subfolder of a Git repository. It holds while the
            # context manager lives.
            self._switch = switch(repo, self._files)
            self._switch.__enter__()
        return repo.dvcfs

    def _read(self, files: Iterable[Path]) -> dict[Path, str]:
        """The texts of files that Git has, as far as they exist."""
        if self._files:
            return git.read_files(self._files, files)
        return {path: path.read_text(encoding="utf-8") for path in files if path.exists()}

    def _parse(self, path: Path, text: str) -> dict[str, Any]:
        try:
            return _parse(text)
        except YAMLError as error:
            raise UserError(f"{self.name}: {path}: corrupt: {' '.join(str(error).split())}; restore it") from None


@cache
def _parse(text: str) -> dict[str, Any]:
    """The content of a YAML file, or of an entry of dvc.lock, most of which are the same in all experiments."""
    return YAML(typ="safe").load(text) or {}


def _commit(rev: str) -> str:
    """The commit of a revision; empty if there is none."""
    command = ["git", "rev-parse", "--quiet", "--verify", f"{rev}^{{commit}}"]
    return subprocess.run(command, capture_output=True, encoding="utf-8").stdout.strip()


def reference(commit: str, source: str | None = None) -> str:
    """The Git reference that `tools.compare.base` gives to the reproduction of a commit with a value of `source`."""
    return f"{REPRODUCED}/{commit}{f'-{source}' if source else ''}"


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted key, value before and value after of each difference; a new or removed entry is one difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({**before, **after}, key=str):
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(before.get(name, ABSENT), after.get(name, ABSENT), inner)
    elif before != after:
        old, new = (value if value is ABSENT else json.dumps(value) for value in (before, after))
        yield key, old, new


def percent(metrics: dict[str, Any], key: str) -> str:
    """A metric in percent; `ABSENT` if there is none, as of validation after a training on all images."""
    return f"{metrics[key]:.2%}" if key in metrics else ABSENT


def points(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The change of the validation accuracy in percentage points; `ABSENT` unless both have one."""
    if not all("validation_accuracy" in metrics for metrics in (before, after)):
        return ABSENT
    return f"{100 * (after['validation_accuracy'] - before['validation_accuracy']):+.2f}".replace("-", "−")
