"""`make unchanged` in a reproduced clone: which changes of training code need no new training."""

import sys
from pathlib import Path

from tests.conftest import CopyFolder, clone_of_work_tree, commit, only, run
from tools.lib.probes import probe


def change(folder: Path, module: str, old: str, new: str) -> None:
    path = folder / module
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_refactoring_or_a_new_augmentation_leaves_nothing_stale_and_another_computation_stays_stale(
    copy_reproduced: CopyFolder, tmp_path: Path
) -> None:
    clone = copy_reproduced(tmp_path / "clone")
    model = (clone / "data/models/mnist_dense.keras").read_bytes()
    change(clone, "stages/training/trainer.py", "probabilities", "predicted_probabilities")
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


def test_measured_results_are_marked_after_a_change_of_evaluation_code(tmp_path: Path) -> None:
    """Their rows show accuracies, which the probe that `make measured-tables` compares therefore computes, too."""
    clone = clone_of_work_tree(tmp_path, lambda values: only(values, "mnist_dense"))
    before = probe(["train@mnist_dense"], clone)
    with (clone / "stages/evaluation/metrics.py").open("a", encoding="utf-8") as module:
        module.write("# a comment\n")
    assert probe(["train@mnist_dense"], clone) == before
    change(clone, "stages/evaluation/metrics.py", "predictions.correct.mean()", "predictions.correct[1:].mean()")
    assert probe(["train@mnist_dense"], clone) != before
