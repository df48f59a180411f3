"""What the user sees of a stage: one line per error, no noise, no waiting for what is not needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.errors import mask_urls
from tests.conftest import ROOT, clone_of_work_tree, commit, only, run


def stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", *arguments, PYTHONPATH=str(ROOT))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stages.train"], "usage: python -m stages.train MODEL\n"),
        (["stages.train", "mnist_dense", "--epochs=3"], "usage: python -m stages.train MODEL\n"),
        (
            ["stages.train", "mnist_dens"],
            "error: params.yaml: models: there is no 'mnist_dens'; did you mean 'mnist_dense'? ",
        ),
        # DVC's name of a stage in a subfolder
        (["stages.train", "../dvc.yaml:train@mnist_dens"], "error: params.yaml: models: there is no 'mnist_dens'; "),
        (["stages.extract", "imagenette_vgg16"], "error: data/raw/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_"),
        (["tools.data.dataset", "pets", "a\x1b[2J"], r"error: a\x1b[2J: no such folder"),
        (["stages.report"], "error: reports/published.yaml: No such file or directory\n"),
    ],
)
def test_user_error_is_one_line_and_exit_code_1(project: Path, arguments: list[str], message: str) -> None:
    done = stage(project, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_temporary_experiment_says_what_dvc_would_lose(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its result, in a shallow clone; and code that was never added to Git."""
    origin, shallow = tmp_path_factory.mktemp("origin"), tmp_path_factory.mktemp("shallow")
    assert run(origin, "git", "init", "-q").returncode == 0
    for message in ("one", "two"):
        commit(origin, message)
    assert run(shallow, "git", "clone", "-q", "--depth", "1", f"file://{origin}", ".").returncode == 0
    command = [sys.executable, "-m", "stages.train", "mnist_dens"]
    done = run(project, *command, PYTHONPATH=str(ROOT), DVC_EXP_NAME="able-cat", DVC_ROOT=str(shallow))
    message = "error: this clone is shallow: DVC would lose this experiment; run `git fetch --unshallow` in it first\n"
    assert (done.returncode, done.stderr) == (1, message)
    (origin / "stages").mkdir()
    (origin / "stages/mine.py").touch()
    done = run(project, *command, PYTHONPATH=str(ROOT), DVC_EXP_NAME="able-cat", DVC_ROOT=str(origin))
    hint = "this experiment has only files that Git has: run `git add stages/mine.py` if it needs that\n"
    assert (done.returncode, done.stderr.partition("; this")[2]) == (1, hint.removeprefix("this"))


def test_new_architecture_in_a_temporary_experiment_says_to_add_it_to_git(tmp_path: Path) -> None:
    clone = clone_of_work_tree(tmp_path, lambda values: only(values, "mnist_dense"))
    (clone / "stages/models/mine.py").write_bytes((clone / "stages/models/dense.py").read_bytes())
    done = run(
        clone, "dvc", "exp", "run", "--temp", "-S", "models.mnist_dense.architecture=mine", "evaluate@mnist_dense"
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: params.yaml: models.mnist_dense.architecture: there is no 'mine'; ")
    assert line.endswith("has only files that Git has: run `git add stages/models/mine.py` if it needs that")


def test_dvc_repro_in_a_subfolder_runs_a_stage(tmp_path: Path) -> None:
    clone = clone_of_work_tree(tmp_path, lambda values: only(values, "mnist_dense"))
    done = run(clone / "stages", "dvc", "repro", "../dvc.yaml:download@mnist")
    assert done.returncode == 0, done.stderr
    assert (clone / "data/raw/mnist").is_dir()


def test_missing_params_is_one_line(tmp_path: Path) -> None:
    done = stage(tmp_path, "stages.check")
    assert (done.returncode, done.stderr) == (1, "error: params.yaml: No such file or directory\n")


COMMAND = "import os, signal, sys, time, weakref; from stages.runtime.cli import run\n"
IMPORT = """
def command():
    import heavy
"""
DELETE = """
class Tensor:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
def command():
    tensor = Tensor()
    del tensor
    time.sleep(30)
    print("went on")
"""
CALLBACK = """
class Connection:
    pass
def gone(reference):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
def command():
    connection = Connection()
    reference = weakref.ref(connection, gone)
    del connection
    time.sleep(30)
    print("went on")
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("stages", "interrupted: `dvc repro` continues after the last finished stage\n"),
        ("tools/search", "interrupted\n"),
    ],
)
def test_ctrl_c_names_dvc_repro_in_stages_alone(tmp_path: Path, package: str, said: str) -> None:
    script = tmp_path / package / "wait.py"
    script.parent.mkdir(parents=True)
    script.write_text(f"{COMMAND}run(lambda: os.kill(os.getpid(), signal.SIGINT))", encoding="utf-8")
    done = run(tmp_path, sys.executable, str(script), PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("code", [IMPORT, DELETE, CALLBACK])
def test_ctrl_c_is_one_line_wherever_it_comes(tmp_path: Path, code: str) -> None:
    """During an import; in a `__del__` and the callback of a weak reference, where Python would print it and go on."""
    (tmp_path / "heavy.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)", encoding="utf-8")
    command = [sys.executable, "-c", f"{COMMAND}sys.path.append({str(tmp_path)!r}){code}run(command)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=25)
    assert done.returncode != 0
    assert (done.stdout, done.stderr) == ("", "interrupted: `dvc repro` continues after the last finished stage\n")


def test_tensorflow_starts_quietly(project: Path) -> None:
    """Stages that use TensorFlow print nothing but their own words; tests/test_train.py looks at a training."""
    for name in ("download", "preprocess"):
        done = stage(project, f"stages.{name}", "mnist")
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "train: 40 images, test: 20 images\n"


def test_entry_modules_import_nothing_heavy() -> None:
    """A stage without TensorFlow does not pay for it; no stage pays before its parameters have been checked."""
    modules = [
        f"stages.{name}"
        for name in ("download", "preprocess", "preprocess_folder", "extract", "train", "evaluate", "report")
    ]
    modules += ["tools.release.sync", "stages.check", "stages.tracking.server"]
    code = (
        f"import sys, json, importlib\nfor name in {modules}: importlib.import_module(name)\n"
        "heavy = ('tensorflow', 'keras', 'mlflow', 'ray', 'pandas', 'sklearn', 'matplotlib')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert json.loads(found.stdout) == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:secret@host/a.gz?token=secret#part 404", "http://host/a.gz 404"),
        ("at https://user@host:1 and 's3://key:secret@bucket/x'", "at https://host:1 and 's3://bucket/x'"),
        ("a?b", "a?b"),
    ],
)
def test_mask_urls_removes_users_passwords_queries_and_fragments(text: str, masked: str) -> None:
    assert mask_urls(text) == masked
