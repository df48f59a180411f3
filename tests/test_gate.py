"""What the gate lets pass, and what it says of what it does not."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from stages import params
from stages.console import UserError
from tests.conftest import ROOT, commit, run, write_params
from tools import gate


def metrics(right: int, images: int = 10_000) -> dict[str, Any]:
    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    return {
        "images": images,
        "accuracy": round(right / images, 6),
        "accuracy_low": round(interval.low, 6),
        "accuracy_high": round(interval.high, 6),
    }


def test_a_floor_is_broken_where_the_whole_interval_is_below_it() -> None:
    assert gate.below("m", metrics(9700), 0.97) is None
    assert gate.below("m", metrics(9680), 0.97) is None  # 97.13 % is in the interval
    said = gate.below("m", metrics(9600), 0.97)
    assert said == "m: test accuracy 96.00% (95.60% to 96.37%) is below the floor of 97.00%"


def test_a_fall_counts_where_the_whole_interval_is_beyond_the_limit() -> None:
    before = metrics(9760)
    assert gate.fall("m", before, metrics(9800), 0.005, "main") is None
    assert gate.fall("m", before, metrics(9690), 0.005, "main") is None  # 0.7 points, but perhaps 0.3
    said = gate.fall("m", before, metrics(9600), 0.005, "main")
    assert said is not None
    assert said.startswith("m: test accuracy 97.60% at main, 96.00% now: fell by 1.60 points (1.1")
    assert said.endswith(", and 0.50 are allowed")


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 against 48 of 80: the first example of his table II, 0.0524 to 0.3339 by method 10."""
    assert gate.difference(metrics(56, 70), metrics(48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of params, metrics and an empty DVC, with MNIST from its publisher; both models measured."""

    def change(values: Any) -> None:
        values["datasets"]["mnist"]["source"] = "published"
        names = ("mnist_dense", "mnist_cnn", "cifar10_cnn")
        values["models"] = {name: values["models"][name] for name in names}
        values["gates"] = {name: {"floor": 0.97, "max_fall": 0.005} for name in names}

    write_params(tmp_path, change)
    for command in (["git", "init", "-q", "-b", "main"], ["dvc", "init", "-q"]):
        assert run(tmp_path, *command).returncode == 0
    (tmp_path / "reports/metrics").mkdir(parents=True)
    measure(tmp_path, mnist_dense=9780, mnist_cnn=9880, cifar10_cnn=10)
    commit(tmp_path, "measured")
    return tmp_path


def measure(folder: Path, **right: int) -> None:
    for name, count in right.items():
        (folder / f"reports/metrics/{name}.json").write_text(json.dumps(metrics(count)))


def judged(folder: Path, base: str = "main") -> tuple[int, list[str], str]:
    done = run(folder, sys.executable, "-m", "tools.gate", base, PYTHONPATH=str(ROOT))
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_what_is_within_the_limits_is_one_line(repository: Path) -> None:
    measure(repository, mnist_dense=9760)
    line = "gate: judged: mnist_dense, mnist_cnn; passed over, on drawn samples: cifar10_cnn"
    assert judged(repository) == (0, [line], "")


def test_what_fell_is_named_and_the_exit_code_is_1(repository: Path) -> None:
    measure(repository, mnist_dense=9640, mnist_cnn=9790)
    code, lines, errors = judged(repository)
    assert (code, errors, len(lines)) == (1, "", 4)
    assert lines[0].startswith("mnist_dense: test accuracy 96.40% (96.02% to 96.75%) is below the floor of 97.00%")
    assert lines[1].startswith("mnist_dense: test accuracy 97.80% at main, 96.40% now: fell by 1.40 points (")
    assert lines[2].startswith("mnist_cnn: test accuracy 98.80% at main, 97.90% now: fell by 0.90 points (")


def test_a_model_without_metrics_or_a_base_that_is_not_there_is_one_line(repository: Path) -> None:
    assert judged(repository, "nowhere")[::2] == (
        1,
        "error: nowhere: unknown Git revision 'nowhere'; fetch it, or name another revision\n",
    )
    (repository / "reports/metrics/mnist_cnn.json").unlink()
    assert judged(repository) == (1, [], "error: reports/metrics/mnist_cnn.json: missing; run `dvc repro`\n")


def test_a_base_measured_on_other_images_is_not_compared(repository: Path) -> None:
    (repository / "reports/metrics/mnist_cnn.json").write_text(json.dumps(metrics(985, 1000)))
    commit(repository, "smaller")
    measure(repository, mnist_cnn=9760)
    code, lines, _ = judged(repository)
    assert code == 0
    assert lines[0].endswith("; not compared, on other test images than main's or new: mnist_cnn")


def test_drawn_samples_are_passed_over_without_a_base(repository: Path) -> None:
    write_params(repository)
    code, lines, _ = judged(repository, "nowhere")
    assert code == 0
    assert lines[0].startswith("gate: passed over, on drawn samples: mnist_dense, ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["gates"].update(mnist_dens={"floor": 0.9}),
            "gates.mnist_dens: there is no such model; did you mean 'mnist_dense'?",
        ),
        (lambda v: v["gates"]["mnist_cnn"].update(flor=0.9), "gates.mnist_cnn.flor: unknown key with value 0.9; did"),
        (lambda v: v["gates"]["mnist_cnn"].update(floor=97), "gates.mnist_cnn.floor: 97: "),
        (lambda v: v["gates"].update(mnist_cnn={}), "gates.mnist_cnn: {}: "),
    ],
)
def test_an_error_in_gates_is_one_line(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    write_params(tmp_path, change)
    with pytest.raises(UserError) as caught:
        params.load(tmp_path / "params.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'params.yaml'}: {message}")
    assert "\n" not in str(caught.value)


def test_features_are_drawn_where_their_images_or_their_weights_are(tmp_path: Path) -> None:
    for published, drawn in (("datasets.imagenette", True), ("weights.vgg16", True), ("both", False)):

        def change(values: Any, published: str = published) -> None:
            for section, name in (("datasets", "imagenette"), ("weights", "vgg16")):
                if published in (f"{section}.{name}", "both"):
                    values[section][name]["source"] = "published"

        write_params(tmp_path, change)
        assert params.load(tmp_path / "params.yaml").is_drawn("imagenette_vgg16") is drawn
