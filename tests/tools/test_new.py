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
from tools.compare.measure import BEGIN, END, TABLES
from tools.data import new
from tools.data.new import without_entries

# Tests that read params.yaml of the sample or of the project, and results: in seconds
WITH_A_SAMPLE = "repository_is_valid or experiment_changes or measured_results or limit_of_seeds"


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
    entries: dict[str, Any] = {
        "reports/published.yaml": {"value": "90 %", "split": "test", "source": None},
        "reports/measured/probes.json": "0" * 16,
        f"{seed}/runs.json": {"cpu_seconds": 60.0},
    }
    write_params(project, add_own)
    metrics = b'{"accuracy": 0.9, "validation_accuracy": 0.9}'
    write(project, {f"{path}/x" if "records" in path else path: metrics for path in (*gone, *stay)})
    write(project, {path: json.dumps({"mnist_dense": entry, "own": entry}).encode() for path, entry in entries.items()})
    write(project, {str(path): f"# Text\n{BEGIN}`mnist_dense`\n{END}".encode() for path in TABLES})
    write(project, {"tests/x": b""})
    lock = {"stages": {name: {"outs": [{"path": path} for path in found]} for name, found in (sample | own).items()}}
    YAML().dump(lock, project / "dvc.lock")
    assert run(project, "git", "init", "-q").returncode == 0
    commit(project, "sample")
    new.new()
    assert [path for path in gone if Path(path).exists()] == []
    assert [path for path in stay if not Path(path).exists()] == []
    for path, entry in entries.items():
        assert json.loads(Path(path).read_text(encoding="utf-8")) == {"own": entry}
    for table in TABLES:
        text = table.read_text(encoding="utf-8")
        assert "| `own` \\* |" in text and "mnist_dense" not in text and text.startswith("# Text\n")


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

    tests = ["tests/config/test_params.py", "tests/tools/test_measure.py", "-k", WITH_A_SAMPLE]
    done = run(clone, "python", "-m", "pytest", "-q", "-n", "0", *tests)
    assert done.returncode == 0, done.stdout
