"""The stage `audit`: from an entry of params.yaml to findings, numbers and a section of the page."""

import difflib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages import audit, report
from stages.auditing import findings
from stages.config import params
from stages.evaluation import predictions
from stages.plots._style import percent
from stages.reporting import audits
from stages.runtime import paths
from stages.runtime.errors import UserError
from tests.conftest import clone_of_work_tree, only, run, write_params
from tools.data import audit_data

MODEL = "cifar10_small_cnn_augmented"
ENTRY = {"similarity": 0.8, "ratio": 0.35, "folds": 5}


def change_params(folder: Path, change: Any) -> None:
    yaml = YAML()
    values = yaml.load(folder / "params.yaml")
    change(values)
    yaml.dump(values, folder / "params.yaml")


@pytest.fixture(scope="module")
def audited(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluated project, of which CIFAR-10 is audited. Ten of its test images have a copy in the training split."""
    folder = tmp_path_factory.mktemp("audited") / "project"
    shutil.copytree(evaluated, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        change_params(folder, lambda values: values["audits"].update(cifar10={"features": "cifar10", **ENTRY}))
        plant(folder)
        predict()
        audit.audit("cifar10")
    return folder


def plant(folder: Path) -> None:
    """Write CIFAR-10's records again: 20 test images, of which half are training images, one with another label.

    There is a validation split, too; the last test image is in it.
    """
    from stages.data import writer
    from tests.reporting.project import images

    train = list(images("cifar10", 40))
    test = list(images("cifar10", 20))
    for at in range(10):
        key, _, label = test[at]
        test[at] = (key, train[at][1], (label + 1) % 10 if at == 0 else label)
    classes = params.load().datasets["cifar10"].class_names
    splits = {"train": train, "validation": [*images("cifar10", 5), test[-1]], "test": test}
    examples = [(split, *example) for split, each in splits.items() for example in each]
    writer.write("cifar10", classes, list(splits), examples)
    counts = {split: dict.fromkeys(classes, len(each) // 10) for split, each in splits.items()}
    paths.counts("cifar10").write_text(json.dumps(counts), encoding="utf-8")


def predict() -> None:
    """Let the model be right about the ten copies and three of the ten other test images."""
    predicted = predictions.read(MODEL)
    order = [int(key.rpartition("_")[2].partition(".")[0]) for key in predicted.keys]
    right = np.array(order) < 13
    changed = np.where(right, predicted.true, (predicted.true + 1) % 10).astype(np.int32)
    predictions.write(paths.predictions(MODEL), replace(predicted, predicted=changed))


def test_audit_writes_findings_and_their_numbers(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(audited)
    rows = findings.read("cifar10")
    exact = rows[rows["kind"] == "exact_duplicate"]
    assert set(exact["split"]) == {"test"}
    assert exact["partner_split"].value_counts().to_dict() == {"train": 10, "validation": 1}
    metrics = json.loads((audited / "reports/audit/cifar10.json").read_text(encoding="utf-8"))
    assert metrics["images"] == {"train": 40, "validation": 6, "test": 20}
    assert metrics["findings"]["exact_duplicate"] == {
        **{"train": 0, "validation": 0, "test": 0},
        **{"test-train": 10, "test-validation": 1},
    }
    assert metrics["findings"]["conflicting_labels"]["test-train"] == 1
    assert metrics["test_images_with_training_duplicate"] == 10
    assert sum(sum(row.values()) for row in metrics["findings"].values()) == len(rows)


def test_page_shows_findings_and_accuracy_without_duplicated_test_images(
    audited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(audited)
    report.report()
    page = Path("reports/index.html").read_text(encoding="utf-8")
    assert page.count('id="audit-') == 1 and 'href="#audits"' in page
    assert page.count("<td>validation</td>") == 1
    shown_accuracy = f"test accuracy {percent(13 / 20)}; {percent(3 / 10)} on the 10 test images without a duplicate"
    assert shown_accuracy in page
    (view,) = audits.views(params.load())
    assert view.places == ["train", "validation", "test", "test-train", "test-validation"]
    shown = view.examples["Exact duplicate"]
    assert len(shown) == audits.PER_KIND
    assert "<h4>Exact duplicate: 8 of 11</h4>" in page
    assert all(re.fullmatch(r"\S+ \(\S+, \w+\)", caption) for pair in shown for _, caption in pair)
    assert all(first.source == second.source for (first, _), (second, _) in shown)
    assert len(view.examples["Conflicting labels"]) == 1


def test_first_ten_images_of_each_kind_are_named(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(audited)
        audit_data.show("cifar10")
    lines = capsys.readouterr().out.splitlines()
    assert not any("nan" in line or "None" in line for line in lines)
    start = lines.index("exact_duplicate: 11")
    assert all(re.fullmatch(r"  \S+ \(test, \w+\) = \S+ \(\w+, \w+\)", line) for line in lines[start + 1 : start + 11])
    assert lines[start + 11] == "  … and 1 more"


def test_names_of_images_cannot_control_a_terminal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = "a\x1b[2J.jpg", "b\nc.jpg"
    rows = [("test", *(keys[0], "cat", "exact_duplicate", 1.0), "train", keys[1], "cat")]
    findings.write("mnist", pd.DataFrame(rows, columns=list(findings.COLUMNS)), 0.9)
    audit_data.show("mnist")
    _, line, _ = capsys.readouterr().out.splitlines()
    assert line == r"  a\x1b[2J.jpg (test, cat) = b\nc.jpg (train, cat)"


def test_page_without_audits_has_no_section(reported: Path) -> None:
    assert "#audits" not in (reported / "reports/index.html").read_text(encoding="utf-8")


def test_findings_that_are_missing_or_corrupt_are_one_line(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(audited)
    path = Path("data/audit/cifar10.parquet")
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-10])
        with pytest.raises(UserError, match=r"data/audit/cifar10.parquet: corrupt: .* audit@cifar10"):
            findings.read("cifar10")
        pd.DataFrame({"key": ["0"]}).to_parquet(path)
        with pytest.raises(UserError, match="its columns are not those of an audit"):
            findings.read("cifar10")
        path.unlink()
        with pytest.raises(UserError, match=r"cifar10.parquet: missing; run `dvc repro audit@cifar10`"):
            findings.read("cifar10")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"mnits": {"features": "mnist", **ENTRY}}, "audits.mnits: there is no 'mnits'; did you mean 'mnist'"),
        ({"mnist": {"features": "imagenette_vgg16", **ENTRY}}, "audits.mnist.features: there is no 'imagenette_vgg16'"),
        ({"mnist": {"features": "mnist", **ENTRY, "folds": 1}}, "audits.mnist.folds: 1: "),
        ({"mnist": {"features": "mnist", "similarity": 0.8}}, "audits.mnist.ratio: missing"),
    ],
)
def test_wrong_entry_is_one_line(project: Path, entry: Any, message: str) -> None:
    change_params(project, lambda values: values["audits"].update(entry))
    with pytest.raises(UserError) as error:
        params.load()
    assert message in str(error.value)


@pytest.mark.parametrize("section", ["audits: {}\n", "audits: {}  # none\n", ""])
def test_audit_data_adds_entries_and_nothing_else(project: Path, section: str) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("audits: {}\n", section), encoding="utf-8")
    before = path.read_text(encoding="utf-8").splitlines()
    for name in ("mnist", "imagenette", "mnist"):
        audit_data.add(name)
    changes = [
        line
        for line in difflib.ndiff(before, path.read_text(encoding="utf-8").splitlines())
        if line[0] in "+-" and line[2:]
    ]
    entries = {"mnist": "mnist", "imagenette": "imagenette_vgg16"}
    values = ["    similarity: 0.8", "    ratio: 0.35", "    folds: 5"]
    added = [[f"  {name}:", f"    features: {features}", *values] for name, features in entries.items()]
    assert [line[2:] for line in changes if line[0] == "+"] == [
        "audits:" + section[10:].rstrip("\n"),
        *added[0],
        *added[1],
    ]
    assert [line[2:] for line in changes if line[0] == "-"] == section.splitlines()
    assert set(params.load().audits) == set(entries)


def test_audit_data_of_an_unknown_dataset_is_one_line(project: Path) -> None:
    with pytest.raises(UserError, match="datasets: there is no 'cifar'; did you mean 'cifar10'"):
        audit_data.add("cifar")
    with pytest.raises(UserError, match="name a dataset"):
        audit_data.add("")
    write_params(project, lambda values: values.update(audits={"mnist": {"features": "mnist", **ENTRY}}))
    text = (project / "params.yaml").read_text(encoding="utf-8").replace("audits:\n  mnist:", "audits: {mnist:")
    assert "audits: {mnist:" in text  # YAML that the tool does not extend
    head, _, tail = text.partition("audits: {mnist:")
    flow = (
        f"audits: {{mnist: {{features: mnist, similarity: 0.8, ratio: 0.35, folds: 5}}}}\n{tail.partition('gates:')[1]}"
    )
    (project / "params.yaml").write_text(head + flow + tail.partition("gates:")[2], encoding="utf-8")
    with pytest.raises(UserError, match="audits: write it with a line for each entry"):
        audit_data.add("cifar10")


def test_dvc_audits_only_what_is_asked_for(tmp_path: Path) -> None:
    """In a clone: no stage without an entry; with one, DVC runs it, and leaves nothing but its numbers to Git."""
    folder = clone_of_work_tree(tmp_path / "clone", lambda values: only(values, "mnist_dense"))
    listed = run(folder, "dvc", "stage", "list", "--name-only")
    assert listed.returncode == 0, listed.stderr
    assert "audit@" not in listed.stdout
    assert (folder / "data/audit/README.md").exists()
    done = run(folder, "python", "-m", "tools.data.audit_data", "mnist")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage 'audit@mnist'" in done.stdout
    assert re.search(r"^label_error: \d+ \(cross-validation accuracy \d\d\.\d%\)$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(
        "all: data/audit/mnist.parquet; labels to correct: data/audit/mnist.csv (docs/audit.md)\n"
    )
    status = run(folder, "git", "status", "--short", "--untracked-files=all").stdout
    assert {line[3:] for line in status.splitlines()} == {"dvc.lock", "params.yaml", "reports/audit/mnist.json"}
    assert "audit@mnist' didn't change" in run(folder, "dvc", "repro", "audit@mnist").stdout
