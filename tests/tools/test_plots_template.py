"""`dvc plots` in a clone, with the templates of this project and a page that needs no network."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert

from stages.evaluation.predictions import Predictions
from stages.plots import _registry as plots
from stages.runtime import paths
from tests.conftest import clone_of_work_tree, commit, only, run, write_params

CLASSES = ["T-shirt/top", "NA", "a.b[0]", "<b>&"]


def write_reports(folder: Path, seed: int) -> None:
    """The tables behind the plots of two models, as train and evaluate write them."""
    random = np.random.default_rng(seed)
    for name in ("mnist_dense", "mnist_cnn"):
        probabilities = random.dirichlet(np.ones(len(CLASSES)), 50).astype(np.float32)
        predictions = Predictions(
            keys=np.arange(50).astype(str).astype(object),
            true=random.integers(0, len(CLASSES), 50).astype(np.int32),
            predicted=probabilities.argmax(axis=1).astype(np.int32),
            probabilities=probabilities,
            classes=CLASSES,
            model_md5="0",
            temperature=2.0,
            not_sure_below=0.5,
            parameters=1,
            compute_dtype="float32",
            validation_images=500,
        )
        history = pd.DataFrame(random.random((3, 4)), [1, 2, 3], ["accuracy", "loss", "val_accuracy", "val_loss"])
        tables = {str(paths.history(name)): history.reset_index(names="epoch")}
        tables |= {str(paths.plot(plot, name)): table for plot, table in plots.tables(predictions).items()}
        for path, table in tables.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(folder / path, index=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work tree with two models, committed; their reports changed since."""
    folder = clone_of_work_tree(tmp_path_factory.mktemp("clone"))
    shutil.rmtree(folder / "reports")

    def two(values: Any) -> None:
        only(values, "mnist_dense", "mnist_cnn")

    write_params(folder, two)
    write_reports(folder, 1)
    commit(folder, "two models")
    assert run(folder, "python", "-m", "tools.run.plots_template").returncode == 0
    write_reports(folder, 2)
    return folder


def specs(page: str) -> Iterator[dict[str, Any]]:
    """The Vega specifications in the page."""
    for found in re.finditer(r"var spec = (\{.*\});$", page, re.MULTILINE):
        yield json.loads(found[1])


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]])
def test_plots_open_without_a_network(clone: Path, command: list[str]) -> None:
    assert run(clone, "dvc", "plots", *command).returncode == 0
    page = (clone / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert re.findall(r"""<(?:script|link|img)[^>]*\s(?:src|href)\s*=\s*["']?(?:https?:)?//""", page) == []
    assert "window.vegaEmbed=" in page
    assert "{plot_divs}" not in page
    assert "{refresh_tag}" not in page
    found = {spec["title"]["text"]: spec for spec in specs(page)}
    kinds = ("accuracy and loss", "confusion", "classes", "reliability", "coverage")
    assert set(found) == {f"{name}: {kind}" for name in ("mnist_dense", "mnist_cnn") for kind in kinds}
    revisions = ["workspace"] if command == ["show"] else ["workspace", "HEAD"]
    for title, spec in found.items():
        assert "<DVC_METRIC" not in json.dumps(spec), title
        picture = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
        for text in revisions if len(revisions) > 1 else []:
            assert f">{text}<" in picture, title
        for text in {
            "accuracy and loss": ["accuracy", "loss", "training", "validation"],
            "confusion": ["a.b[0]", "&lt;b&gt;&amp;", "actual", "predicted"],
            "classes": ["NA", "precision", "recall", "F1"],
            "reliability": ["confidence", "accuracy", "share of the images", "before", "after"],
            "coverage": ["answered, the surest first"],
        }[title.split(": ")[1]]:
            assert f">{text}<" in picture, (title, text)


def test_files_of_a_clone_are_not_in_git(clone: Path) -> None:
    status = run(clone, "git", "status", "--short").stdout
    assert (clone / ".dvc/plots.html").stat().st_size > 500_000
    assert {line[3:].split("/")[0] for line in status.splitlines()} == {"reports"}
