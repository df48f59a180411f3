"""`make new`: the sample leaves, one's own images train, and the tests still have what they work on."""

from pathlib import Path

from ruamel.yaml import YAML

from stages.config import params
from tests.conftest import commit, copy_work_tree, outputs, run
from tests.data.test_folder import names, write
from tools.data.new import without_entries


def test_blank_lines_and_comments_keep_no_entry_and_leave_an_empty_section() -> None:
    text = "models: # those that train\n  a:\n    x: 1\n\n  # the second\n  b:\n    x: 2\n  # the last\n"
    text += "export:\n- a\n\nseed: 1\n"
    own = without_entries(text, {"models": {"a", "b"}, "export": {"a"}})
    assert YAML(typ="safe").load(own) == {"models": {}, "export": [], "seed": 1}
    assert YAML(typ="safe").load(without_entries(text, {"models": {"a"}}))["models"] == {"b": {"x": 2}}


def test_own_project_has_no_sample_and_trains_own_images(tmp_path: Path) -> None:
    clone, photos = tmp_path / "clone", tmp_path / "photos"
    copy_work_tree(clone)
    commit(clone, "clone")
    before = (clone / "params.yaml").read_bytes()
    done = run(clone, "python", "-m", "tools.data.new")
    assert done.returncode == 0, done.stderr
    commit(clone, "own project")
    assert (clone / "tests/sample/params.yaml").read_bytes() == before
    values = params.load(clone / "params.yaml")
    assert not (values.datasets or values.models or values.weights or values.gates or values.search)
    assert not list((clone / "reports").rglob("mnist*")) and not (clone / "dvc.lock").exists()
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
