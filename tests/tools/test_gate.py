"""Which models the gate judges by which limits, and what it says about the others."""

from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.runtime.errors import UserError
from tests.conftest import write_params
from tools.compare import gate
from tools.lib.significance import difference

LIMITS = {"min_accuracy": 0.97, "max_drop": 0.005}
MODELS = ("mnist_dense", "mnist_cnn", "cifar10_cnn")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """params.yaml with published MNIST, synthetic CIFAR-10, and three models with LIMITS."""
    folder = tmp_path_factory.mktemp("params")

    def change(values: Any) -> None:
        values["datasets"]["mnist"]["synthetic"] = None
        values["models"] = {name: values["models"][name] for name in MODELS}

    write_params(folder, change)
    return YAML(typ="safe").load(folder / "params.yaml") | {"gates": dict.fromkeys(MODELS, LIMITS)}


def revision(values: Any, name: str = "workspace", images: int = 10_000, **accuracies: float) -> Any:
    """A revision with all models evaluated, with these validation accuracies. The test accuracy is always 50 %."""
    found = {"mnist_dense": 0.978, "mnist_cnn": 0.988, "cifar10_cnn": 0.1} | accuracies
    return SimpleNamespace(
        name=name,
        params=values,
        unevaluated=[],
        metrics={model: {"accuracy": 0.5} for model in found},
        accuracy=lambda model: (found[model], images),
    )


def judged(values: Any, base: Any = None, **accuracies: float) -> tuple[bool, list[str]]:
    return gate.judge(base or revision(values, "main"), revision(values, "workspace", 10_000, **accuracies))


def test_models_within_the_limits_pass_and_are_named(values: Any) -> None:
    """An interval that ends above the minimum does not break it; nor does a drop that may be smaller than the limit."""
    base = revision(values, "main", mnist_dense=0.97)
    assert judged(values, base, mnist_dense=0.968, mnist_cnn=0.982) == (
        True,
        [
            "mnist_cnn: validation accuracy 98.20% (97.92% to 98.44%), test accuracy 50.00%",
            "mnist_dense: validation accuracy 96.80% (96.44% to 97.13%), test accuracy 50.00%",
            "gate passed; judged: mnist_cnn, mnist_dense; not judged, synthetic data: cifar10_cnn",
        ],
    )


def test_models_beyond_the_limits_fail_and_are_named(values: Any) -> None:
    passed, lines = judged(values, mnist_dense=0.96, mnist_cnn=0.979)
    assert (passed, len(lines)) == (False, 6)
    assert lines[0].startswith("mnist_cnn: validation accuracy 98.80% at main, 97.90% now: dropped 0.90 points (")
    assert lines[1] == "mnist_dense: validation accuracy 96.00% (95.60% to 96.37%) is below min_accuracy, 97.00%"
    assert lines[2].startswith("mnist_dense: validation accuracy 97.80% at main, 96.00% now: dropped 1.80 points (1.3")
    assert lines[2].endswith("); max_drop: 0.50")
    assert lines[-1].startswith("gate failed; judged: mnist_cnn, mnist_dense; ")


def test_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 against 48 of 80: the first example of his table II, 0.0524 to 0.3339 by method 10."""
    assert difference((56 / 70, 70), (48 / 80, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_limits_loosened_by_the_workspace_do_not_apply(values: Any) -> None:
    own = values | {"gates": values["gates"] | {"mnist_dense": {"min_accuracy": 0.5}}}
    passed, lines = gate.judge(revision(values, "main"), revision(own, mnist_dense=0.9))
    assert not passed
    assert lines[0].startswith("mnist_dense: validation accuracy 90.00% (")
    assert lines[-1].endswith("; limits of main apply, the workspace has others: mnist_dense")


def test_gates_of_another_schema_at_the_base_are_named(values: Any) -> None:
    old = values | {"gates": {"mnist_dense": {"floor": 0.9}}}
    passed, lines = judged(values, revision(old, "main"))
    assert passed
    assert "those of main have another schema: cifar10_cnn, mnist_cnn, mnist_dense" in lines[-1]


def test_model_without_metrics_is_one_line(values: Any) -> None:
    after = revision(values)
    after.unevaluated.append("mnist_cnn")
    with pytest.raises(UserError, match=r"^reports/metrics/mnist_cnn\.json: missing; run `dvc repro`$"):
        gate.judge(revision(values, "main"), after)


def test_base_with_other_validation_images_is_not_compared(values: Any) -> None:
    passed, lines = judged(values, revision(values, "main", 1000, mnist_dense=0.999))
    assert passed
    assert "; not compared with main, new or on other validation images: mnist_cnn, mnist_dense" in lines[-1]


def test_model_trained_on_all_images_is_not_judged(values: Any) -> None:
    passed, lines = gate.judge(revision(values, "main"), revision(values, images=0))
    assert not passed
    assert lines[-1].startswith("nothing to judge; ")
    assert lines[-1].endswith("; not judged, no validation images: mnist_cnn, mnist_dense")


def test_gate_that_judges_nothing_fails_unless_it_has_no_limits(values: Any) -> None:
    only_synthetic = values | {"gates": {"cifar10_cnn": LIMITS}}
    message = "nothing to judge; not judged, synthetic data: cifar10_cnn"
    assert judged(only_synthetic) == (False, [message])
    assert judged(values | {"gates": {}}) == (True, ["gate passed; params.yaml has no gates"])


def test_gate_exits_with_1_if_it_does_not_pass(values: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "Revision", lambda rev="workspace": revision(values, rev, mnist_cnn=0.5))
    with pytest.raises(SystemExit) as failed:
        gate.gate("main")
    assert failed.value.code == 1
