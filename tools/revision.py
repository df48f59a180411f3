"""A revision of the repository, or the workspace, as DVC has it: its files from Git, the cache or a remote."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from stages.console import UserError

ABSENT = "–"  # in a cell for which there is no value


@dataclass(frozen=True)
class Training:
    """A model as dvc.lock has it trained and measured.

    seed: of the training. params: all others that it depends on. deps: hash of each module and folder that it read.
    metrics: of the model that came out.
    """

    seed: int
    params: dict[str, Any]
    deps: dict[str, str]
    metrics: dict[str, Any]

    def changes(self, base: "Training") -> str:
        """What differs from another training, but for the seed: `epochs=3 train.batch_size=64 code`."""
        found = [f"{key}={value}" for key, _, value in differences(base.params, self.params)]
        changed = {path for path in {**base.deps, **self.deps} if base.deps.get(path) != self.deps.get(path)}
        found += ["data"] if any(path.startswith("data/") for path in changed) else []
        found += ["code"] if any(path.startswith("stages/") for path in changed) else []
        return " ".join(found)


class Revision:
    """What one revision says of its models. Nothing here is checked: it may be older than today's params.yaml."""

    def __init__(self, name: str | None = None) -> None:
        """Find the revision.

        Args:
            name: a branch, tag, commit or DVC experiment; None for the workspace.

        Raises:
            UserError: there is none of this name, or no DVC repository.
        """
        if name == "":
            raise UserError("the revision: empty; name a branch, tag, commit or experiment")
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException

        self.name = name or "workspace"
        self._files = DVCFileSystem(".", rev=name)
        try:
            self.commit = str(self._files.repo.get_rev())[:7]
        except DvcException as error:
            raise UserError(f"{self.name}: {error}; fetch it, or name another revision") from None

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml; empty if there is none."""
        return self._yaml("params.yaml")

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The stages of dvc.lock: what ran last, with which params and deps, and what came out."""
        return self._yaml("dvc.lock").get("stages", {})

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of each model of params.yaml that has any, in its order."""
        found = {name: self._text(f"reports/metrics/{name}.json") for name in self.params.get("models", {})}
        try:
            return {name: json.loads(text) for name, text in found.items() if text is not None}
        except json.JSONDecodeError as error:
            raise UserError(f"{self.name}: reports/metrics: not JSON: {error}; run `dvc repro`") from None

    def training(self, model: str) -> Training | None:
        """How a model was trained; None where the metrics are not those of the last training, or not there."""
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

    def predictions(self, model: str) -> pd.DataFrame | None:
        """Key, true and predicted class of each test image; None where neither cache nor remote has them."""
        try:
            content = self._files.read_bytes(f"data/predictions/{model}.parquet")
        except Exception:  # every kind of storage has its own: no file, no credentials, no network
            return None
        return pd.read_parquet(io.BytesIO(content), columns=["key", "true", "predicted"]).astype(str)

    def _yaml(self, path: str) -> dict[str, Any]:
        return YAML(typ="safe").load(self._text(path) or "") or {}

    def _text(self, path: str) -> str | None:
        try:
            return self._files.read_text(path)
        except FileNotFoundError:
            return None


def experiments() -> Iterator[tuple[str, str, str]]:
    """Name, revision and state of each DVC experiment of HEAD; the state of a finished one is empty."""
    from dvc.api import exp_show

    for row in exp_show():
        if row["Experiment"]:
            yield row["Experiment"], row["rev"], "" if row["State"] in (None, "Success") else row["State"].lower()


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted key, value before and value after of all that differs, an entry that is new or gone as one."""
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
    """By how many percentage points the test accuracy has changed."""
    return f"{100 * (after['accuracy'] - before['accuracy']):+.2f}".replace("-", "−")


def table(head: list[str], align: str, rows: Iterable[list[str]]) -> str:
    """A Markdown table that a terminal shows in columns too; `align` has an l or an r for each."""
    sides = [{"l": "left", "r": "right"}[letter] for letter in align]
    return pd.DataFrame(rows, columns=head).to_markdown(index=False, disable_numparse=True, colalign=sides)


def _value(section: dict[str, Any], name: str) -> str:
    return json.dumps(section[name]) if name in section else ABSENT
