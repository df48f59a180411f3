"""Which models the gate judges by which limits, and what it says about the others."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, commit, run, write_params
from tools import gate
from tools.significance import difference

LIMITS = {"min_accuracy": 0.97, "max_drop": 0.005}


def test_accuracy_breaks_the_minimum_only_with_its_whole_interval() -> None:
    assert gate.below("m", (0.97, 10_000), 0.97) is None
    assert gate.below("m", (0.968, 10_000), 0.97) is None  # the interval ends at 97.13 %
    said = gate.below("m", (0.96, 10_000), 0.97)
    assert said == "m: validation accuracy 96.00% (95.60% to 96.37%) is below min_accuracy, 97.00%"


def test_drop_breaks_the_limit_only_with_its_whole_interval() -> None:
    before = (0.976, 10_000)
    assert gate.drop("m", before, (0.98, 10_000), 0.005, "main") is None
    assert gate.drop("m", before, (0.969, 10_000), 0.005, "main") is None  # 0.7 points, but perhaps 0.3
    said = gate.drop("m", before, (0.96, 10_000), 0.005, "main")
    assert said is not None
    assert said.startswith("m: validation accuracy 97.60% at main, 96.00% now: dropped 1.60 points (1.1")
    assert said.endswith("); max_drop: 0.50")


def test_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 against 48 of 80: the first example of his table II, 0.0524 to 0.3339 by method 10."""
    assert difference((56 / 70, 70), (48 / 80, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with params, metrics and an empty DVC, published MNIST, synthetic CIFAR-10; all models evaluated."""
    write_limits(tmp_path)
    for command in (["git", "init", "-q", "-b", "main"], ["dvc", "init", "-q"]):
        assert run(tmp_path, *command).returncode == 0
    (tmp_path / "reports/metrics").mkdir(parents=True)
    measure(tmp_path, mnist_dense=0.978, mnist_cnn=0.988, cifar10_cnn=0.1)
    commit(tmp_path, "measured")
    return tmp_path


def write_limits(folder: Path, **limits: dict[str, Any]) -> None:
    """params.yaml with three models and LIMITS, except for those given."""

    def change(values: Any) -> None:
        values["datasets"]["mnist"]["synthetic"] = None
        names = ("mnist_dense", "mnist_cnn", "cifar10_cnn")
        values["models"] = {name: values["models"][name] for name in names}
        values["gates"] = dict.fromkeys(names, LIMITS) | limits

    write_params(folder, change)


def measure(folder: Path, images: int = 10_000, **accuracies: float) -> None:
    for name, accuracy in accuracies.items():
        # The test accuracy decides nothing.
        values = {"validation_accuracy": accuracy, "validation_images": images, "accuracy": 0.5}
        (folder / f"reports/metrics/{name}.json").write_text(json.dumps(values))


def judged(folder: Path, base: str = "main") -> tuple[int, list[str], str]:
    done = run(folder, sys.executable, "-m", "tools.gate", base, PYTHONPATH=str(ROOT))
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_models_within_the_limits_pass_and_are_named(repository: Path) -> None:
    measure(repository, mnist_dense=0.976)
    assert judged(repository) == (
        0,
        [
            "mnist_dense: validation accuracy 97.60% (97.28% to 97.88%), test accuracy 50.00%",
            "mnist_cnn: validation accuracy 98.80% (98.57% to 99.00%), test accuracy 50.00%",
            "gate passed; judged: mnist_dense, mnist_cnn; not judged, synthetic data: cifar10_cnn",
        ],
        "",
    )


def test_models_beyond_the_limits_fail_and_are_named(repository: Path) -> None:
    measure(repository, mnist_dense=0.964, mnist_cnn=0.979)
    code, lines, errors = judged(repository)
    assert (code, errors, len(lines)) == (1, "", 6)
    assert lines[0] == "mnist_dense: validation accuracy 96.40% (96.02% to 96.75%) is below min_accuracy, 97.00%"
    assert lines[1].startswith("mnist_dense: validation accuracy 97.80% at main, 96.40% now: dropped 1.40 points (")
    assert lines[2].startswith("mnist_cnn: validation accuracy 98.80% at main, 97.90% now: dropped 0.90 points (")
    assert lines[-1].startswith("gate failed; judged: mnist_dense, mnist_cnn; ")


def test_limits_loosened_by_the_workspace_do_not_apply(repository: Path) -> None:
    write_limits(repository, mnist_dense={"min_accuracy": 0.5})
    measure(repository, mnist_dense=0.9)
    code, lines, _ = judged(repository)
    assert code == 1
    assert lines[0].startswith("mnist_dense: validation accuracy 90.00% (")
    assert lines[-1].endswith("; limits of main apply, the workspace has others: mnist_dense")


def test_gates_of_another_schema_at_the_base_are_named(repository: Path) -> None:
    params = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(params.replace("min_accuracy:", "floor:"))
    commit(repository, "old")
    (repository / "params.yaml").write_text(params)
    code, lines, _ = judged(repository)
    assert code == 0
    assert "; limits of the workspace, those of main have another schema: gates." in lines[-1]


def test_model_without_metrics_is_one_line(repository: Path) -> None:
    (repository / "reports/metrics/mnist_cnn.json").unlink()
    assert judged(repository) == (1, [], "error: reports/metrics/mnist_cnn.json: missing; run `dvc repro`\n")


def test_unknown_base_is_one_line(repository: Path) -> None:
    message = "error: nowhere: unknown Git revision 'nowhere'; fetch it, or name another revision\n"
    assert judged(repository, "nowhere") == (1, [], message)


def test_base_with_other_validation_images_is_not_compared(repository: Path) -> None:
    measure(repository, 1000, mnist_cnn=0.999)
    commit(repository, "smaller")
    measure(repository, mnist_cnn=0.976)
    code, lines, _ = judged(repository)
    assert code == 0
    assert lines[-1].endswith("; not compared with main, new or on other validation images: mnist_cnn")


def test_gate_that_judges_nothing_fails(repository: Path) -> None:
    write_params(repository)
    commit(repository, "synthetic")
    code, lines, _ = judged(repository)
    assert code == 1
    assert lines[0].startswith("gate failed, no model was judged; not judged, synthetic data: mnist_dense, ")


def test_params_without_gates_pass(repository: Path) -> None:
    write_params(repository, lambda values: values.update(gates={}))
    commit(repository, "no gates")
    assert judged(repository) == (0, ["gate passed; params.yaml has no gates"], "")
