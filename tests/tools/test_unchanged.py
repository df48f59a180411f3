"""`make unchanged` in a reproduced clone: which changes of training code need no new training."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.prediction.saved_model import save
from tests.conftest import CopyFolder, commit, run, thirty_epochs, write_params
from tools.lib.probes import saved_parts


def change(folder: Path, module: str, old: str, new: str) -> None:
    path = folder / module
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def with_second_model(values: Any) -> None:
    thirty_epochs(values)
    values["models"]["second"] = dict(values["models"]["mnist_dense"])


def test_refactoring_or_a_new_augmentation_leaves_nothing_stale_and_another_computation_stays_stale(
    copy_reproduced: CopyFolder, tmp_path: Path
) -> None:
    clone = copy_reproduced(tmp_path / "clone")
    model = (clone / "data/models/mnist_dense.keras").read_bytes()
    change(clone, "stages/training/trainer.py", "probabilities", "predicted_probabilities")
    change(clone, "tools/lib/probes.py", "[:16]", "[:15]")  # both sides are compared with today's digest
    augmentations = clone / "stages/training/augmentations"
    (augmentations / "mine.py").write_bytes((augmentations / "horizontal_flip.py").read_bytes())  # no model uses it
    assert "train@mnist_dense" in run(clone, "dvc", "status").stdout

    done = run(clone, sys.executable, "-m", "tools.run.unchanged")
    assert done.returncode == 0, done.stderr
    assert "train@mnist_dense: computes the same; dvc.lock has the new code\n" in done.stdout
    assert run(clone, "dvc", "status", "--quiet").returncode == 0
    assert (clone / "data/models/mnist_dense.keras").read_bytes() == model

    commit(clone, "refactored")
    change(clone, "stages/kernels/adam.py", "epsilon=optimizer.epsilon", "epsilon=2 * optimizer.epsilon")
    done = run(clone, sys.executable, "-m", "tools.run.unchanged")
    assert done.returncode == 1
    assert "train@mnist_dense: computes something else; stays stale\n" in done.stdout
    assert "train@mnist_dense" in run(clone, "dvc", "status").stdout


def test_only_what_depends_on_recorded_trainings_runs_and_its_failure_is_one_line(
    copy_reproduced: CopyFolder, tmp_path: Path
) -> None:
    clone = copy_reproduced(tmp_path / "clone")
    # Every probe computes the same: only what follows is tested
    code = "from tools.run import unchanged; unchanged.probe = lambda stages, folder=None: dict.fromkeys(stages)"
    command = [sys.executable, "-c", f"{code}; unchanged.run(unchanged.unchanged)"]
    before = (clone / "params.yaml").read_text(encoding="utf-8")
    change(clone, "stages/training/trainer.py", "probabilities", "predicted_probabilities")
    (clone / "stages/report.py").write_text("raise SystemExit('error: no report')\n", encoding="utf-8")
    commit(clone, "refactored")
    write_params(clone, with_second_model)
    done = run(clone, *command)
    assert "train@mnist_dense: computes the same; dvc.lock has the new code\n" in done.stdout
    assert "train@second: not its code alone changed; stays stale\n" in done.stdout
    assert (done.returncode, done.stderr) == (1, "error: some stages stay stale, see above; run `make repro`\n")

    (clone / "params.yaml").write_text(before, encoding="utf-8")
    (clone / "data/models/mnist_dense.keras").unlink()  # as after Ctrl-C
    change(clone, "stages/training/trainer.py", "predicted_probabilities", "probabilities")
    done = run(clone, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no training or extraction is stale because of its code\n"

    assert run(clone, "dvc", "checkout").returncode == 0
    done = run(clone, *command)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "error: a stage failed: see above")
    assert "Traceback" not in done.stderr


def test_threshold_and_class_means_are_among_what_a_probe_compares(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    path = tmp_path / "a.keras"
    found = set()
    for threshold, mean in ((0.5, 1), (0.6, 1), (0.6, 2)):
        save(model, path, {"not_sure_below": threshold}, np.full((2, 4), mean, np.float32))
        found.add(tuple(saved_parts(path)))
    assert len(found) == 3
