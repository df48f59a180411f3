"""The benchmarks measure what they say; each one runs with the smallest possible input."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import (
    accuracy,
    common,
    extraction,
    growth,
    pipeline,
    preprocessing,
    profile,
    readme,
    repro,
    scaling,
    training,
    transfer,
)
from benchmarks.__main__ import main
from stages import preprocess
from stages.download import download
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow
from tests.conftest import ROOT, write_params


def sleep_and_note(done: common.Done, seconds: float, path: Path) -> None:
    """Sleep in each round, and note process, start and end."""
    while True:
        start = time.time()
        time.sleep(seconds)
        with path.open("a", encoding="utf-8") as file:
            print(os.getpid(), start, time.time(), file=file)
        done(seconds)


def fail(done: common.Done) -> None:
    raise SystemExit(1)


def test_contenders_are_processes_that_work_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "times"
    with (
        common.contender(sleep_and_note, 0.05, path) as short,
        common.contender(sleep_and_note, 0.1, path) as long,
    ):
        results = common.interleaved({"short": short, "long": long}, 3)
    found = [[float(value) for value in line.split()] for line in path.read_text(encoding="utf-8").splitlines()]
    pids = [pid for pid, _, _ in found]
    assert pids == pids[:2] * 3 and pids[0] != pids[1]
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(found))
    assert all(one.seconds >= 0.1 and one.value == 0.1 for one in results["long"])


def test_contender_that_fails_is_one_line() -> None:
    with common.contender(fail) as run_round, pytest.raises(UserError, match="fail ended early"):
        run_round()


def test_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """A machine that is twice as slow in one round changes the medians, but not the ratio."""
    row = common.Row("model", {"plain": [100.0, 50.0, 90.0], "pipeline": [200.0, 100.0, 180.0]})
    assert row.ratio("pipeline") == 2
    assert row.medians == {"plain": 90, "pipeline": 180}
    assert common.geometric_mean([1.0, 4.0]) == pytest.approx(2)


def test_spread_over_seeds_is_that_of_a_sample() -> None:
    assert transfer.percent([0.5, 0.6, 0.7]) == "60.0 ± 10.0"
    assert transfer.percent([0.5]) == "50.0"


@pytest.mark.parametrize(
    ("target", "measured", "met"), [("≥ 2.0", 2.0, True), ("≥ 2.0", 1.99, False), ("≤ 40", 41, False)]
)
def test_target_is_met_or_not(target: str, measured: float, met: bool) -> None:
    assert common.Target("speed", target, measured).met is met


def test_operations_of_vgg16_are_those_of_the_literature() -> None:
    """At 224 pixels 30.7 GFLOP, which are 15.3 billion multiply-adds."""
    import keras

    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    forward, both = common.operations(model)
    assert forward == pytest.approx(30.7e9, rel=0.01)
    assert both == 3 * forward - 2 * 224 * 224 * 27 * 64


def test_results_are_written_as_json_and_as_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "FOLDER", tmp_path)
    monkeypatch.setattr(readme, "FOLDER", tmp_path)
    (tmp_path / "README.md").write_text(f"# By hand\n\n{readme.MARK}\n\nold tables\n", encoding="utf-8")
    row = common.Row("mnist_dense", {"plain Keras": [1000.0, 1234.5678], "pipeline": [2000.0, 2469.0]})
    result = common.Result(
        [common.Table("Training", "images/s", [row])], [common.Target("training", "≥ 1.5", 2.0)], ["A remark."]
    )
    common.save("training", common.content("training", result, common.machine()))
    written = json.loads((tmp_path / "results" / "training.json").read_text(encoding="utf-8"))
    assert written["tables"][0]["rows"][0]["values"]["plain Keras"] == [1000, 1235]
    assert written["targets"][0]["met"] is True
    assert {"processor", "cores", "memory_gib", "load_before"} <= set(written["machine"])
    assert "keras" in written["versions"]
    for _ in range(2):
        readme.write(["training", "never run"])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# By hand\n")
    assert text.count("| `mnist_dense` | 1,117 | 2,234 | 2× |") == 1
    assert "| training | ≥ 1.5 | 2 | yes |" in text
    assert "A remark." in text
    assert "old tables" not in text


def test_tables_in_the_readme_are_those_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(before, encoding="utf-8")
    monkeypatch.setattr(readme, "FOLDER", tmp_path)
    readme.write(name.stem for name in sorted((ROOT / "benchmarks" / "results").glob("*.json")))
    assert sorted((tmp_path / "README.md").read_text(encoding="utf-8").splitlines()) == sorted(before.splitlines())


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders are forked from a process that has imported TensorFlow, which takes longer than what they do here."""
    import_tensorflow()  # sets the environment variables that decide what an import finds
    monkeypatch.setattr(common, "CONTEXT", multiprocessing.get_context("forkserver"))
    multiprocessing.set_forkserver_preload(["tensorflow", "tensorflow_datasets"])


@pytest.fixture
def tiny(project: Path) -> Path:
    """The project with the records of its smallest dataset."""
    download("mnist")
    preprocess.preprocess("mnist")
    return project


@pytest.mark.usefixtures("forked")
def test_training_is_timed_against_plain_keras(tiny: Path) -> None:
    result = training.compare(["mnist_dense"], rounds=1, seconds=0.01)
    (row,) = result.tables[0].rows
    assert set(row.values) == {"plain Keras", "pipeline"}
    assert all(value > 0 for values in row.values.values() for value in values)
    assert result.targets[0].measured == pytest.approx(row.ratio("pipeline"))


@pytest.mark.usefixtures("forked")
def test_time_of_a_step_is_divided_among_kinds_of_operations(tiny: Path) -> None:
    _, text = profile.measure(quick=True).remarks
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    shares = {kind: float(share.rstrip("%") or 0) for kind, share in zip(head[1:], row[1:], strict=True)}
    assert sum(shares.values()) == pytest.approx(100, abs=5)
    assert shares["convolutions"] > 5 and shares["matrix products"] > 5 and not shares["normalization"]


def test_strong_recipes_are_not_compared_with_plain_keras(project: Path) -> None:
    from stages.config import params

    models = params.load().resolved_models
    strong = {name for name in models if not training.is_tutorial(models[name])}
    assert {"mnist_deotte", "cifar10_airbench94"} <= strong and not {"mnist_dense", "cifar10_cnn_augmented"} & strong


def test_tutorial_has_the_layers_and_the_optimizer_of_keras(project: Path) -> None:
    from stages.config import params

    download("cifar10")
    preprocess.preprocess("cifar10")
    model = training.tutorial(params.load().resolved_models["cifar10_small_cnn_augmented"])
    assert [type(layer).__name__ for layer in model.layers[:3]] == ["RandomFlip", "RandomRotation", "RandomTranslation"]
    assert type(model.optimizer).__module__.startswith("keras.")
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)


@pytest.mark.usefixtures("forked")
def test_preprocessing_is_timed_against_tfds(project: Path) -> None:
    (row,) = preprocessing.compare(["mnist"], rounds=1, share=0.005).tables[0].rows
    assert set(row.values) == {"tfds build", "stage"}
    assert row.notes["archive"] == "synthetic"


@pytest.mark.usefixtures("forked")
def test_preprocessing_takes_published_archives_from_data(project: Path) -> None:
    download("imagenette")
    write_params(project, lambda values: values["datasets"]["imagenette"].update(synthetic=None))
    (row,) = preprocessing.compare(["imagenette"], rounds=1, share=1).tables[0].rows
    assert row.notes["archive"] == "real"
    assert set(row.values) == {"tfds build", "stage"}


@pytest.mark.slow
def test_growth_is_measured_in_processes(project: Path) -> None:
    memory, seconds = growth.compare(["mnist"], [], (1, 2)).tables
    assert 100 < memory.rows[0].values["2×"][0] < 4000
    assert seconds.rows[0].values["1×"][0] > seconds.rows[0].values["2×"][0] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_extraction_is_timed_against_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path, lambda values: values["features"]["imagenette_vgg16"].update(image_size=64))
    monkeypatch.chdir(tmp_path)
    for name in ("imagenette", "vgg16"):
        download(name)
    preprocess.preprocess("imagenette")
    result = extraction.compare("imagenette_vgg16", images=8, rounds=1)
    assert set(result.tables[0].rows[0].values) == {"predict, float32", "stage"}
    assert set(result.tables[1].rows[0].values) == {"bfloat16 matrix product", "stage"}
    assert 0.999 < result.targets[2].measured <= 1 + 1e-9
    heads = accuracy.compare_features("imagenette_vgg16", {"train": 20, "test": 10}, seeds=1)
    (row,) = heads.tables[0].rows
    assert all(value in range(0, 101, 10) for (value,) in row.values.values())  # of ten images
    assert row.notes["compute_dtype"] == result.tables[0].rows[0].notes["compute_dtype"]
    assert heads.targets[0].measured == row.values["float32"][0] - row.values["pipeline"][0]


@pytest.mark.usefixtures("forked")
def test_scaling_measures_the_rates_of_all_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.data.extraction import BATCH_SIZE  # late: every contender imports this module

    write_params(tmp_path, lambda values: values["features"]["imagenette_vgg16"].update(image_size=32))
    monkeypatch.chdir(tmp_path)
    with common.contender(scaling.work_of_one_core, 4) as run_round:
        assert [run_round().value for _ in scaling.WORK] == [{"images": 4}] * len(scaling.WORK)
    with common.contender(scaling.backbone, "imagenette_vgg16") as run_round:
        assert run_round().value == {"images": 2 * BATCH_SIZE}


@pytest.mark.slow
def test_stage_is_timed_in_parts(tiny: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.timed", "stages.train", "train@mnist_dense"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BENCHMARK_TIMES": str(tiny / "times")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (line,) = (tiny / "times").read_text(encoding="utf-8").splitlines()
    found = json.loads(line)
    assert found["stage"] == "train"
    assert {"importing TensorFlow", "reading records", "training", "prediction", "MLflow"} == set(found["parts"])
    assert all(seconds > 0 for seconds in found["parts"].values())
    assert sum(found["parts"].values()) < found["whole"]
    assert (tiny / "data" / "models" / "mnist_dense.keras").exists()


@pytest.mark.slow
def test_pipeline_is_timed_in_a_clone() -> None:
    result = pipeline.compare(["mnist_dense"], rounds=1)
    assert [row.name for row in result.tables[0].rows] == [
        "nothing to do",
        "one model changed, mnist_dense",
        "from nothing",
    ]
    parts = {row.name: row.medians["time"] for row in result.tables[1].rows}
    assert sum(parts.values()) == pytest.approx(result.tables[0].rows[2].medians["dvc repro"])
    assert parts["training"] > 0


@pytest.mark.slow
def test_make_repro_is_timed_in_a_clone() -> None:
    assert repro.from_nothing(["mnist_dense"]) > 0


@pytest.mark.usefixtures("forked")
def test_accuracy_is_that_of_the_test_split(tiny: Path) -> None:
    (row,) = accuracy.compare(["mnist_dense"], seeds=1).tables[0].rows
    assert all(0 <= value <= 100 for values in row.values.values() for value in values)


def test_unknown_benchmark_is_one_line() -> None:
    with pytest.raises(UserError, match="there is no 'trainin'; choose from training, "):
        main(["trainin"])
