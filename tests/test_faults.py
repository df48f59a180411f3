"""Faults of the machine, as processes meet them: full and read-only disks, damaged data, a name that is a command."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import download, evaluate, extract, params, preprocess, records, sample, train
from stages.console import UserError
from tests.conftest import ROOT, clone_of_work_tree, only, run, write_params

SIZE = 64 << 20  # bytes of the disk that fills up
# What makes a disk of its own within a process, without anybody's permission where the system allows it.
ISOLATED = ["unshare", "--map-root-user", "--mount"]
MOUNT = [*ISOLATED, "mount", "-t", "tmpfs", "none", "/tmp"]
needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(MOUNT, capture_output=True).returncode != 0,
    reason="this system lets no process mount a disk of its own",
)


def small(values: Any) -> None:
    """One model on pixels, one on features."""
    only(values, "mnist_dense", "imagenette_vgg16")
    values["features"]["imagenette_vgg16"].update(image_size=32, precision="float32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run; what it made is in `made/`, to link to."""
    folder = tmp_path_factory.mktemp("made")
    write_params(folder, small)
    before = Path.cwd()
    os.chdir(folder)
    try:
        values = params.load()
        archives: dict[str, params.Dataset | params.Weights] = {**values.datasets, **values.weights}
        for name, entry in archives.items():
            sample.draw(name, entry, Path("data/raw") / name)
        for name in values.datasets:
            preprocess.preprocess(name)
        extract.extract("imagenette_vgg16")
        train.train("mnist_dense")
    finally:
        os.chdir(before)
    return folder


def copy_of(made: Path, folder: Path) -> Path:
    """A project of its own with all that was made."""
    return Path(shutil.copytree(made, folder / "project"))


def in_process(folder: Path, script: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `folder`, with mounts of its own; `python -m stages.NAME` are the project's stages."""
    environment = {**os.environ, **values, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    return subprocess.run(
        [*ISOLATED, "sh", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True
    )


FULL = """
mount -t tmpfs -o size=$SIZE none "$DISK"
ln -s $LINKS "$DISK"
head -c $FILL /dev/zero > "$DISK/fill"
$PYTHON -m $STAGE && exit 9
echo "left: $(ls -A "$DISK" | tr '\\n' ' ')"
rm "$DISK/fill"
$PYTHON -m $STAGE >&2
echo "then: $(ls -A "$DISK" | tr '\\n' ' ')"
"""


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "disk", "links", "room", "output"),
    [
        ("download mnist", "data/raw", [], 8 << 10, "mnist"),
        ("preprocess mnist", "data/records", [], 8 << 10, "mnist"),
        ("extract imagenette_vgg16", "data/records", ["imagenette"], 8 << 10, "imagenette_vgg16"),
        ("train mnist_dense", "data/models", [], 8 << 10, "mnist_dense.keras"),
        ("evaluate mnist_dense", "reports/metrics", [], 0, "mnist_dense.json"),
    ],
)
def test_a_full_disk_is_one_line_and_what_is_written_then_is_whole(
    made: Path, tmp_path: Path, stage: str, disk: str, links: list[str], room: int, output: str
) -> None:
    project = copy_of(made, tmp_path)
    (project / disk).mkdir(parents=True, exist_ok=True)
    for name in links:
        (project / disk / name).rename(project / name)
    done = in_process(
        project,
        FULL,
        SIZE=str(SIZE),
        DISK=disk,
        LINKS=" ".join(str(project / name) for name in [*links, "params.yaml"]),
        FILL=str(SIZE - room),
        STAGE=f"stages.{stage}",
    )
    assert done.returncode == 0, done.stderr
    line, *rest = done.stderr.splitlines()
    assert line.startswith(f"error: {disk}/{output}: no space left in {disk}: ")
    assert "make space and run `dvc repro` again" in line
    assert not any(other.startswith(("error", "Traceback", "Exception")) for other in rest), done.stderr
    linked = [*links, "params.yaml"]
    assert f"left: {' '.join(sorted([*linked, 'fill']))} \n" in done.stdout
    assert f"then: {' '.join(sorted([*linked, output]))} \n" in done.stdout


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "disk"), [("download mnist", "data/raw"), ("evaluate mnist_dense", "reports/metrics")]
)
def test_a_read_only_folder_is_named(made: Path, tmp_path: Path, stage: str, disk: str) -> None:
    project = copy_of(made, tmp_path)
    (project / disk).mkdir(parents=True, exist_ok=True)
    done = in_process(project, f"mount -t tmpfs -o ro none {disk}; exec $PYTHON -m stages.{stage}")
    assert done.returncode == 1
    assert re.fullmatch(rf"error: {disk}/\S+: Read-only file system\n", done.stderr)


# Root may do everything, unless it gives that up.
PLAIN_USER = "setpriv --bounding-set=-all --inh-caps=-all"


@needs_mounts
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv takes root's rights away")
@pytest.mark.parametrize(
    ("stage", "forbidden", "message"),
    [
        ("download mnist", "data/raw", "data/raw/.mnist.part: Permission denied"),
        ("train mnist_dense", "params.yaml", "params.yaml: Permission denied"),
        ("preprocess mnist", "data/raw/mnist/*", "data/raw/mnist/train-images-idx3-ubyte.gz: Permission denied"),
        ("train mnist_dense", "data/records/mnist/*", "data/records/mnist/dataset_info.json: Permission denied"),
        ("evaluate mnist_dense", "data/predictions/*", "data/predictions/mnist_dense.parquet: Permission denied"),
    ],
)
def test_what_is_forbidden_is_named(made: Path, tmp_path: Path, stage: str, forbidden: str, message: str) -> None:
    project = copy_of(made, tmp_path)
    done = in_process(project, f"chmod 000 {forbidden}; exec {PLAIN_USER} $PYTHON -m stages.{stage}")
    run(project, "chmod", "-R", "u+rwX", ".")
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def test_damaged_predictions_are_named(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No whole file, and one in which a bit of a probability is another."""
    monkeypatch.chdir(copy_of(made, tmp_path))
    path = Path("data/predictions/mnist_dense.parquet")
    good = path.read_bytes()
    place = good.index(np.float32(pd.read_parquet(path)["probabilities"].iloc[-1][-1]).tobytes()) + 1
    flipped = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    for content in (b"", b"PAR1", b"PAR1 and so on PAR1", flipped):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=f"^{path}: damaged: .*`dvc repro --force --single-item train@mnist_dense`$"
        ):
            evaluate.evaluate("mnist_dense")
    assert not Path("reports/metrics").exists()


WEIGHTS = "data/raw/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"


def test_damaged_weights_are_named(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 sees most damage by itself, and no other bit: that is for the hash of what was fetched to tell."""
    monkeypatch.chdir(copy_of(made, tmp_path))
    path = Path(WEIGHTS)
    good = path.read_bytes()
    again = "`dvc repro --force --single-item download_weights@vgg16`"
    for damaged in (b"", b"text", good[: len(good) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"^{WEIGHTS}: damaged, or not VGG16's: .*{again}$"):
            extract.extract("imagenette_vgg16")
    path.unlink()
    with pytest.raises(UserError, match=f"^{WEIGHTS}: missing; "):
        extract.extract("imagenette_vgg16")

    sources = [{"url": "file:///x", "hash": f"md5:{hashlib.md5(good).hexdigest()}"}]

    def fetched(values: Any) -> None:
        small(values)
        values["weights"]["vgg16"].update(source="published", files={path.name: sources})

    write_params(Path(), fetched)
    path.write_bytes(good)
    assert extract._weights(params.load(), "vgg16") == path
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match=f"^{WEIGHTS}: damaged: its hash is none of those in params.yaml; .*{again}$"):
        extract.extract("imagenette_vgg16")


def test_no_secret_of_a_url_is_told(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sources with a user, a password and a token: logs, MLflow, metrics and all else that the stages write."""
    monkeypatch.chdir(copy_of(made, tmp_path))

    def change(values: Any, source: str = "sample") -> None:
        small(values)
        values["source"] = source
        for sources in values["datasets"]["mnist"]["files"].values():
            for one in sources:
                one["url"] = "http://user:hunter2@127.0.0.1:1/a.gz?token=hunter2"

    write_params(Path(), change)
    preprocess.preprocess("mnist")
    train.train("mnist_dense")
    evaluate.evaluate("mnist_dense")
    write_params(Path(), partial(change, source="published"))
    monkeypatch.setattr(download, "BACKOFF", ())
    with pytest.raises(UserError, match=r"no source gives it: http://127\.0\.0\.1:1/a\.gz: no connection") as error:
        download.download("mnist")
    assert "Connection refused" in str(error.value)
    printed = capfd.readouterr()
    assert "hunter2" not in f"{printed}{error.value}"
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert {"mlflow.db", "mnist_dense.json", "mnist_dense.keras"} <= {path.name for path in files}
    assert [str(path) for path in files if b"hunter2" in path.read_bytes()] == ["params.yaml"]


def test_git_ignores_what_is_not_for_it() -> None:
    """Data, caches, databases, secrets."""
    paths = [
        *("data/raw/mnist/a.gz", "data/models/a.keras", "mlflow.db", "mlruns/0/a", ".env"),
        *(".dvc/cache/files/md5/00/a", ".dvc/tmp/lock", ".dvc/config.local", ".hypothesis/a", ".pytest_cache/a"),
    ]
    ignored = run(ROOT, "git", "check-ignore", "--no-index", *paths).stdout.split()
    assert ignored == paths


def shard(clone: Path) -> Path:
    return next((clone / "data/records/mnist").glob("*-train.tfrecord-*"))


def cached(clone: Path, file: Path) -> Path:
    """The object of DVC's cache that has the bytes of `file`."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return clone / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


@pytest.mark.slow
def test_a_damaged_or_missing_cache_is_never_trained_on(tmp_path: Path) -> None:
    """DVC takes its cache for good: it is the reader of records that finds the damage, and says what helps."""
    clone = clone_of_work_tree(tmp_path / "clone", lambda values: only(values, "mnist_dense"))
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    lock = (clone / "dvc.lock").read_text()
    good = shard(clone).read_bytes()

    # A bit flips in the cache, and with it in the file that is a link to it. Then another model is asked for.
    file = cached(clone, shard(clone))
    file.chmod(0o644)
    file.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    file.chmod(0o444)
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("units: [100]", "units: [10]"))
    done = run(clone, "dvc", "repro", "train@mnist_dense")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: data/records/mnist: damaged: split 'train")
    assert "Traceback" not in done.stderr

    # What the line says helps.
    command = re.search("`dvc (repro --force --single-item preprocess@mnist)`", line)
    assert command
    assert run(clone, "dvc", *command[1].split()).returncode == 0
    assert shard(clone).read_bytes() == good
    (clone / "params.yaml").write_text(text)
    assert run(clone, "dvc", "repro").returncode == 0
    assert (clone / "dvc.lock").read_text() == lock

    # The file of a model is damaged, but not the cache: it comes back from there.
    model = clone / "data/models/mnist_dense.keras"
    whole = model.read_bytes()
    model.unlink()
    model.write_bytes(whole[:-1000])
    assert run(clone, "dvc", "repro").returncode == 0
    assert model.read_bytes() == whole

    # An object and its link are gone: checking out says so, and the pipeline makes them again.
    cached(clone, shard(clone)).unlink()
    shard(clone).unlink()
    done = run(clone, "dvc", "checkout", "preprocess@mnist")
    assert done.returncode != 0
    assert "records/mnist" in done.stderr
    assert run(clone, "dvc", "repro").returncode == 0
    assert shard(clone).read_bytes() == good
    assert (clone / "dvc.lock").read_text() == lock


def test_no_pickle_and_no_code_in_a_model_is_run(tmp_path: Path) -> None:
    """A model of someone else's that would run what it brings along."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + len(__import__("os").listdir()))])
    model.save(tmp_path / "model.keras")
    images = records.Arrays(np.array(["a"], object), np.zeros((1, 4), np.float32), np.zeros(1, np.int32))
    with pytest.raises(ValueError, match=r"safe_mode|unsafe|Lambda"):
        train.predict(tmp_path / "model.keras", images, ["a", "b", "c", "d"])
    unsafe = re.compile(
        r"\bpickle\.|import pickle|joblib|allow_pickle=True|read_pickle|safe_mode=False|enable_unsafe"
        r"|yaml\.(unsafe|full)|shell=True|os\.system"
    )
    modules = {*(ROOT / "stages").rglob("*.py"), *(ROOT / "tools").rglob("*.py")}
    # Ray's own way between the processes of one run, which read no pickle from anywhere else.
    for module in modules - {ROOT / "stages/cluster.py"}:
        assert not unsafe.search(module.read_text()), module


@pytest.mark.parametrize(
    ("section", "entry", "stage"), [("datasets", "mnist", "download"), ("models", "mnist_dense", "train")]
)
@pytest.mark.parametrize("name", ["a; touch pwned #", '$(touch pwned)"`touch pwned`'])
def test_a_name_in_params_that_is_a_command_is_not_run(
    tmp_path: Path, section: str, entry: str, stage: str, name: str
) -> None:
    """DVC hands a command to the shell; the name of a dataset, or of a model, is no part of it."""
    clone = clone_of_work_tree(tmp_path / "clone", lambda values: only(values, "mnist_dense"))
    (clone / "data/records/mnist").mkdir(parents=True)  # DVC looks for what a training depends on
    write_params(clone, lambda values: values[section].update({name: values[section][entry]}))
    done = run(clone, "dvc", "repro", "--single-item", f"{stage}@{name}")
    assert done.returncode != 0
    assert f"error: params.yaml: {section}" in done.stderr
    assert not list(tmp_path.rglob("pwned"))
