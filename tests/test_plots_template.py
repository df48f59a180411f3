"""The plots as a user opens them: `dvc plots` in a clone, with our templates and the page that needs no network."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert

from stages import evaluate
from tests.conftest import ROOT, write_params

CLASSES = ["T-shirt/top", "NA", "a.b[0]", "<b>&"]


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def write_reports(folder: Path, seed: int) -> None:
    """The files behind the plots of the two models, as train and evaluate write them."""
    random = np.random.default_rng(seed)
    for name in ("mnist_dense", "mnist_cnn"):
        probabilities = random.dirichlet(np.ones(len(CLASSES)), 50).astype(np.float32)
        predictions = pd.DataFrame(
            {
                "true": pd.Categorical.from_codes(random.integers(0, len(CLASSES), 50), CLASSES),
                "predicted": pd.Categorical.from_codes(probabilities.argmax(axis=1), CLASSES),
                "probabilities": list(probabilities),
            }
        )
        history = pd.DataFrame(random.random((3, 4)), [1, 2, 3], ["accuracy", "loss", "val_accuracy", "val_loss"])
        tables = {f"reports/history/{name}.csv": history.reset_index(names="epoch")}
        for plot in (evaluate.confusion, evaluate.classes, evaluate.reliability):
            tables[f"reports/plots/{plot.__name__}/{name}.csv"] = plot(predictions)
        for path, table in tables.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(folder / path, index=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's definition with two models, committed, and their reports changed since."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    for part in ("stages", "tools"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / file, folder / file)

    def two(values: Any) -> None:
        values["models"] = {name: values["models"][name] for name in ("mnist_dense", "mnist_cnn")}

    write_params(folder, two)
    write_reports(folder, 1)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "tiny"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    run(folder, "python", "-m", "tools.plots_template")
    write_reports(folder, 2)
    return folder


def specs(page: str) -> Iterator[dict[str, Any]]:
    """What the page gives Vega to draw."""
    for found in re.finditer(r"var spec = (\{.*\});$", page, re.MULTILINE):
        yield json.loads(found[1])


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]])
def test_plots_open_without_a_network(clone: Path, command: list[str]) -> None:
    run(clone, "dvc", "plots", *command)
    page = (clone / "dvc_plots/index.html").read_text()
    assert re.findall(r"""<(?:script|link|img)[^>]*\s(?:src|href)\s*=\s*["']?(?:https?:)?//""", page) == []
    assert "window.vegaEmbed=" in page
    assert "{plot_divs}" not in page
    assert "{refresh_tag}" not in page
    drawn = {spec["title"]["text"]: spec for spec in specs(page)}
    kinds = ("accuracy and loss", "confusion", "classes", "reliability")
    assert set(drawn) == {f"{name}: {kind}" for name in ("mnist_dense", "mnist_cnn") for kind in kinds}
    revisions = ["workspace"] if command == ["show"] else ["workspace", "HEAD"]
    for title, spec in drawn.items():
        assert "<DVC_METRIC" not in json.dumps(spec), title
        picture = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
        for text in revisions if len(revisions) > 1 else []:
            assert f">{text}<" in picture, title
        for text in {
            "accuracy and loss": ["accuracy", "loss", "training", "validation"],
            "confusion": ["a.b[0]", "&lt;b&gt;&amp;", "actual", "predicted"],
            "classes": ["NA", "precision", "recall", "F1"],
            "reliability": ["confidence", "accuracy", "share of the images"],
        }[title.split(": ")[1]]:
            assert f">{text}<" in picture, (title, text)


def test_what_is_written_for_a_clone_is_not_for_git(clone: Path) -> None:
    status = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert (clone / ".dvc/plots.html").stat().st_size > 500_000
    assert {line[3:].split("/")[0] for line in status.splitlines()} == {"reports"}
