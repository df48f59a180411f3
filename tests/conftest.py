"""A small project of its own for each test that needs one: real files, real archives, few images."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
TINY = {"train": 40, "test": 20}
LONG = ["test_pipeline", "test_experiments", "test_kill", "test_faults", "test_seeds", "test_review", "test_tracking"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take minutes first, so that none of them is what everybody waits for in the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def write_params(folder: Path, change: Callable[[Any], None] = lambda values: None) -> None:
    """Write the repository's params.yaml to `folder`, with tiny samples, one epoch, and what `change` does to it."""
    yaml = YAML()
    yaml.width = 4096
    values = yaml.load(ROOT / "params.yaml")
    for dataset in values["datasets"].values():
        dataset["sample"] = TINY
    values["train"]["epochs"] = 1
    models = list(values["models"])
    change(values)
    for name in models:
        if name not in values["models"]:
            values["gates"].pop(name, None)  # a model that a test takes away takes its gate along
    yaml.dump(values, folder / "params.yaml")


def only(values: Any, *models: str) -> None:
    """Leave these models, and the data that they need, for `write_params`."""
    values["models"] = {name: values["models"][name] for name in models}
    used = {model["dataset"] for model in values["models"].values()}
    values["features"] = {name: entry for name, entry in values["features"].items() if name in used}
    used |= {entry["dataset"] for entry in values["features"].values()}
    values["datasets"] = {name: entry for name, entry in values["datasets"].items() if name in used}
    backbones = {entry["backbone"] for entry in values["features"].values()}
    values["weights"] = {name: entry for name, entry in values["weights"].items() if name in backbones}


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` with the tests' own interpreter as `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)


def commit(folder: Path, message: str) -> None:
    """Commit everything in `folder` to Git."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["add", "-A"], [*identity, "commit", "-q", "--allow-empty", "-m", message]):
        done = run(folder, "git", *command)
        assert done.returncode == 0, done.stderr


def copy_work_tree(folder: Path) -> None:
    """Copy what Git has of the work tree, or would add, to `folder`, which becomes a repository of its own."""
    files = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    assert run(folder, "git", "init", "-q", "-b", "main").returncode == 0


def clone_of_work_tree(folder: Path, change: Callable[[Any], None] = lambda values: None) -> Path:
    """The work tree with what `write_params` makes of params.yaml, committed in a repository of its own in `folder`."""
    copy_work_tree(folder)
    write_params(folder, change)
    commit(folder, "tiny")
    return folder


def outputs(folder: Path) -> dict[str, str]:
    """The hash of every output in dvc.lock."""
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


@pytest.fixture(autouse=True)
def no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a database in the working directory; MLflow itself sets the variable, which then outlives a test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Processes of the test take Ctrl-C, also where all of it runs in the background and the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with params.yaml, which is the working directory of the test."""
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


AWKWARD = ["<script>alert(1)</script>", "NA", "1", "$x^$", "a class whose name is too long for a figure", "T-shirt/top"]
MODELS = ["mnist_dense", "cifar10_small_cnn_augmented", "imagenette_vgg16"]


def of_split(split: str, examples: Iterable[tuple[str, str, Any, int]]) -> list[tuple[str, Any, int]]:
    """Key, image and label of the examples of a split."""
    return [example[1:] for example in examples if example[0] == split]


def examples(dataset: str, number: int) -> Iterator[tuple[str, Any, int]]:
    """Images as the format of `dataset` gives them: grey or in colour, or JPEG files of varying size."""
    random = np.random.default_rng(number)
    for index in range(number):
        height, width, channels = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}.get(dataset, (120 + index, 150, 3))
        image: Any = random.integers(0, 256, (height, width, channels)).astype(np.uint8)
        if dataset == "imagenette":
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG")
            image = buffer.getvalue()
        yield f"{index % 10}/{'ILSVRC2012_val_' if index % 2 else 'n0_'}{index}.JPEG", image, index % 10


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three models, measured and not yet reported: their data, predictions and metrics."""
    from stages import evaluate, params, records

    folder = tmp_path_factory.mktemp("measured")

    def few(values: Any) -> None:
        values["models"] = {name: values["models"][name] for name in MODELS}
        del values["datasets"]["fashion_mnist"]
        values["datasets"]["mnist"]["classes"][: len(AWKWARD)] = AWKWARD

    write_params(folder, few)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tables = [f"reports/plots/{plot}" for plot in ("confusion", "classes", "reliability")]
        for path in ("data/predictions", "data/counts", "data/skipped", "reports/history", "reports/metrics", *tables):
            Path(path).mkdir(parents=True)
        published = {
            "mnist_dense": {"figure": "78–80 %", "split": "validation", "source": "https://example.com/?a=1&b=2"}
        }
        Path("reports/published.yaml").write_text(json.dumps(published))
        values = params.load()
        for name, dataset in values.datasets.items():
            drawn = ((split, *example) for split in TINY for example in examples(name, TINY[split]))
            records.write(name, dataset.class_names, list(TINY), drawn)
            counts = {split: dict.fromkeys(dataset.class_names, TINY[split] // 10) for split in ("train", "test")}
            (Path("data/counts") / f"{name}.json").write_text(json.dumps(counts))
            skipped = {"train": {"n01/note.txt": "is not a JPEG file"} if name == "imagenette" else {}, "test": {}}
            (Path("data/skipped") / f"{name}.json").write_text(json.dumps(skipped))
        for seed, (name, model) in enumerate(values.models.items()):
            source = values.features[model.dataset].dataset if model.dataset in values.features else model.dataset
            random = np.random.default_rng(seed)
            keys, _, labels = zip(*examples(source, TINY["test"]), strict=True)
            probabilities = random.dirichlet(np.ones(10), len(keys)).astype(np.float32)
            predictions = pd.DataFrame(
                {
                    "key": keys,
                    "true": pd.Categorical.from_codes(labels, values.datasets[source].class_names),
                    "predicted": pd.Categorical.from_codes(
                        probabilities.argmax(axis=1), values.datasets[source].class_names
                    ),
                    "probabilities": list(probabilities),
                }
            )
            predictions.attrs["model"] = f"{seed:032x}"
            predictions.to_parquet(f"data/predictions/{name}.parquet", index=False)
            history = pd.DataFrame(random.random((2, 4)), [1, 2], ["accuracy", "loss", "val_accuracy", "val_loss"])
            history.to_csv(f"reports/history/{name}.csv", index_label="epoch")
            metrics = {
                **evaluate.metrics(predictions),
                **evaluate.unseen(predictions, model.unseen_prefix),
                "validation_accuracy": 0.5,
                "parameters": 79510,
                "epochs": 2,
                "precision": "float32",
            }
            Path(f"reports/metrics/{name}.json").write_text(json.dumps(metrics))
            for plot in (evaluate.confusion, evaluate.classes, evaluate.reliability):
                plot(predictions).to_csv(f"reports/plots/{plot.__name__}/{name}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def reported(measured: Path) -> Path:
    """The same folder after `stages.report`."""
    from stages import report

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(measured)
        report.report()
    return measured
