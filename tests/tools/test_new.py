"""`make new`: the sample leaves, one's own images train, and the tests still have what they work on."""

import copy
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.config import params
from tests.conftest import commit, copy_work_tree, only, outputs, run, write_params
from tests.data.test_folder import names, write
from tests.test_preprocess_folder import add_folder
from tools.data import new
from tools.data.new import without_entries


def test_blank_lines_and_comments_keep_no_entry_and_leave_an_empty_section() -> None:
    text = "models: # those that train\n  a:\n    x: 1\n\n  # the second\n  b:\n    x: 2\n  # the last\n"
    text += "export:\n- a\n\nseed: 1\n"
    own = without_entries(text, {"models": {"a", "b"}, "export": {"a"}})
    assert YAML(typ="safe").load(own) == {"models": {}, "export": [], "seed": 1}
    assert YAML(typ="safe").load(without_entries(text, {"models": {"a"}}))["models"] == {"b": {"x": 2}}


def test_outputs_of_the_sample_leave_and_those_of_own_images_stay(project: Path) -> None:
    def add_own(values: Any) -> None:
        only(values, "mnist_dense")
        add_folder(values, path="photos", classes=["cat", "dog"])
        values["models"]["own"] = {**copy.deepcopy(values["models"]["mnist_dense"]), "dataset": "flowers"}

    def outs(dataset: str, model: str, stage: str) -> dict[str, list[str]]:
        return {
            f"{stage}@{dataset}": [f"data/records/{dataset}", f"data/counts/{dataset}.json"],
            f"train@{model}": [f"data/models/{model}.keras", f"reports/history/{model}.csv"],
            f"evaluate@{model}": [f"reports/metrics/{model}.json", f"reports/plots/classes/{model}.csv"],
        }

    sample = outs("mnist", "mnist_dense", "preprocess") | {"report": ["reports/README.md", "reports/index.html"]}
    own = outs("flowers", "own", "preprocess_folder")
    seed = "reports/measured/seed-42"
    gone = [path for paths in sample.values() for path in paths]
    gone += [f"{seed}/metrics/mnist_dense.json", "reports/measured/whole/seed-42/runs.json"]
    stay = [path for paths in own.values() for path in paths]
    stay += ["photos/cat/0.jpg", "data/models/notes.txt", "reports/metrics/notes.txt", f"{seed}/metrics/own.json"]
    tables = ["reports/published.yaml", "reports/measured/probes.json", f"{seed}/runs.json"]
    write_params(project, add_own)
    write(project, {f"{path}/x" if "records" in path else path: b"{mnist_dense: {}}" for path in (*gone, *stay)})
    write(project, dict.fromkeys(tables, b"{mnist_dense: {value: 1}, own: {value: 1e-05}}"))
    write(project, {"tests/x": b""})
    lock = {"stages": {name: {"outs": [{"path": path} for path in found]} for name, found in (sample | own).items()}}
    YAML().dump(lock, project / "dvc.lock")
    assert run(project, "git", "init", "-q").returncode == 0
    commit(project, "sample")
    new.new()
    assert [path for path in gone if Path(path).exists()] == []
    assert [path for path in stay if not Path(path).exists()] == []
    for table in tables:
        assert json.loads(Path(table).read_text(encoding="utf-8")) == {"own": {"value": 1e-05}}


def test_own_project_has_no_sample_and_trains_own_images(tmp_path: Path) -> None:
    clone, photos = tmp_path / "clone", tmp_path / "photos"
    copy_work_tree(clone)
    leftover = clone / "data/models/mnist_dense.keras"  # of `make repro`
    leftover.parent.mkdir()
    leftover.touch()
    commit(clone, "clone")
    before = (clone / "params.yaml").read_bytes()
    done = run(clone, "python", "-m", "tools.data.new")
    assert done.returncode == 0, done.stderr
    commit(clone, "own project")
    assert (clone / "tests/sample/params.yaml").read_bytes() == before
    values = params.load(clone / "params.yaml")
    assert not (values.datasets or values.models or values.weights or values.gates or values.search)
    assert not list((clone / "reports").rglob("mnist*")) and not (clone / "dvc.lock").exists()
    assert not leftover.exists()
    again = run(clone, "python", "-m", "tools.data.new")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)

    write(photos, names(20))
    done = run(clone, "python", "-m", "tools.data.dataset", "flowers", str(photos))
    assert done.returncode == 0, done.stderr
    (model,) = YAML(typ="safe").load(clone / "params.yaml")["models"]
    done = run(clone, "dvc", "exp", "run", "-S", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    assert {f"reports/metrics/{model}.json", "reports/README.md"} <= outputs(clone).keys()
    shown = run(clone, "dvc", "exp", "show", "--csv").stdout.partition("\n")[0]
    assert "mnist" not in shown and f"models.{model}.learning_rate" in shown

    done = run(clone, "python", "-m", "pytest", "-q", "-n", "0", "tests/config", "-k", "repository or one_line")
    assert done.returncode == 0, done.stdout
