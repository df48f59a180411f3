"""Faults of a machine: full and read-only disks, corrupt data, missing permissions, names that are commands."""

import hashlib
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.config import params
from stages.data.reader import SplitArrays
from stages.download import download
from stages.evaluate import evaluate
from stages.extract import extract
from stages.preprocess import preprocess
from stages.runtime.errors import UserError
from stages.train import train
from tests.conftest import ROOT, clone_of_work_tree, only, run, write_params
from tests.mounts import needs_mounts, run_with_mounts
from tests.training.small import predict

SIZE = 64 << 20  # bytes of the disk that fills up


def small(values: Any) -> None:
    """One model on pixels, one on features."""
    only(values, "mnist_dense", "imagenette_vgg16")
    values["features"]["imagenette_vgg16"].update(image_size=32, compute_dtype="float32")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage up to the training has run."""
    folder = tmp_path_factory.mktemp("reproduced")
    write_params(folder, small)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        values = params.load()
        for name in (*values.datasets, *values.weights):
            download(name)
        for name in values.datasets:
            preprocess(name)
        extract("imagenette_vgg16")
        train("mnist_dense")
    return folder


@pytest.fixture
def copy(reproduced: Path, tmp_path: Path) -> Path:
    """A copy of the reproduced project for one test."""
    return Path(shutil.copytree(reproduced, tmp_path / "project"))


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
        ("extract imagenette_vgg16", "data/records", ["imagenette"], 8 << 10, "imagenette_vgg16"),
        ("train mnist_dense", "data/models", [], 8 << 10, "mnist_dense.keras"),
        ("evaluate mnist_dense", "reports/metrics", [], 0, "mnist_dense.json"),
    ],
)
def test_full_disk_is_one_line_and_the_next_run_completes(
    copy: Path, stage: str, disk: str, links: list[str], room: int, output: str
) -> None:
    (copy / disk).mkdir(parents=True, exist_ok=True)
    for name in links:
        (copy / disk / name).rename(copy / name)
    done = run_with_mounts(
        copy,
        FULL,
        SIZE=str(SIZE),
        DISK=disk,
        LINKS=" ".join(str(copy / name) for name in [*links, "params.yaml"]),
        FILL=str(SIZE - room),
        STAGE=f"stages.{stage}",
    )
    assert done.returncode == 0, done.stderr
    line, *rest = done.stderr.splitlines()
    assert line.startswith(f"error: {disk}/{output}: no space left in {disk}: ")
    assert "free some space and run `dvc repro` again" in line
    assert not any(other.startswith(("error", "Traceback", "Exception")) for other in rest), done.stderr
    linked = [*links, "params.yaml"]
    assert f"left: {' '.join(sorted([*linked, 'fill']))} \n" in done.stdout
    assert f"then: {' '.join(sorted([*linked, output]))} \n" in done.stdout


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "disk"), [("download mnist", "data/raw"), ("evaluate mnist_dense", "reports/metrics")]
)
def test_read_only_folder_is_named(copy: Path, stage: str, disk: str) -> None:
    (copy / disk).mkdir(parents=True, exist_ok=True)
    done = run_with_mounts(copy, f"mount -t tmpfs -o ro none {disk}; exec $PYTHON -m stages.{stage}")
    assert done.returncode == 1
    assert re.fullmatch(rf"error: {disk}/\S+: Read-only file system\n", done.stderr)


# Root may read and write everything unless it gives up its capabilities.
PLAIN_USER = "setpriv --bounding-set=-all --inh-caps=-all"


@needs_mounts
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only setpriv takes root's rights away")
@pytest.mark.parametrize(
    ("stage", "forbidden", "message"),
    [
        ("download mnist", "data/raw", "data/raw/.mnist.part: Permission denied"),
        ("train mnist_dense", "params.yaml", "params.yaml: Permission denied"),
        ("preprocess mnist", "data/raw/mnist/*", "data/raw/mnist/train-images-idx3-ubyte.gz: Permission denied"),
        ("evaluate mnist_dense", "data/predictions/*", "data/predictions/mnist_dense.parquet: Permission denied"),
    ],
)
def test_file_without_permission_is_named(copy: Path, stage: str, forbidden: str, message: str) -> None:
    done = run_with_mounts(copy, f"chmod 000 {forbidden}; exec {PLAIN_USER} $PYTHON -m stages.{stage}")
    run(copy, "chmod", "-R", "u+rwX", ".")
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def test_corrupt_predictions_are_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Incomplete files, and one in which a bit of a probability has flipped."""
    monkeypatch.chdir(copy)
    path = Path("data/predictions/mnist_dense.parquet")
    good = path.read_bytes()
    place = good.index(np.float32(pd.read_parquet(path)["probabilities"].iloc[-1][-1]).tobytes()) + 1
    flipped = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    for content in (b"", b"PAR1", b"PAR1 and so on PAR1", flipped):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=f"^{path}: corrupt: .*`dvc repro --force --single-item train@mnist_dense`$"
        ):
            evaluate("mnist_dense")
    assert not Path("reports/metrics").exists()


WEIGHTS = "data/raw/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"


def test_corrupt_weights_are_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 detects incomplete files; only the hash of the published file detects a flipped bit."""
    monkeypatch.chdir(copy)
    path = Path(WEIGHTS)
    good = path.read_bytes()
    again = "`dvc repro --force --single-item download_weights@vgg16`"
    for corrupt in (b"", b"text", good[: len(good) // 2]):
        path.write_bytes(corrupt)
        with pytest.raises(UserError, match=f"^{WEIGHTS}: corrupt, or not VGG16's: .*{again}$"):
            extract("imagenette_vgg16")
    path.unlink()
    with pytest.raises(UserError, match=f"^{WEIGHTS}: missing; "):
        extract("imagenette_vgg16")

    mirrors = [{"url": "file:///x", "hash": f"md5:{hashlib.md5(good).hexdigest()}"}]

    def published(values: Any) -> None:
        small(values)
        values["source"] = "real"
        values["weights"]["vgg16"].update(files={path.name: mirrors})

    write_params(Path(), published)
    path.write_bytes(good)
    extract("imagenette_vgg16")
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match=f"^{WEIGHTS}: corrupt: its hash is not in params.yaml; .*{again}$"):
        extract("imagenette_vgg16")


def test_secrets_of_urls_appear_in_no_output(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Mirrors with a user, a password and a token; logs, MLflow, metrics and everything else that stages write."""
    monkeypatch.chdir(copy)

    def change(values: Any, source: str = "synthetic") -> None:
        small(values)
        values["source"] = source
        for mirrors in values["datasets"]["mnist"]["files"].values():
            for number, mirror in enumerate(mirrors):
                secret = "http://user:hunter2@127.0.0.1:1/a.gz?token=hunter2"
                mirrors[number] = f"{secret}#{mirror.partition('#')[2]}"

    write_params(Path(), change)
    preprocess("mnist")
    train("mnist_dense")
    evaluate("mnist_dense")
    write_params(Path(), partial(change, source="real"))
    shutil.rmtree("data/raw/mnist")
    monkeypatch.setattr("stages.data.real.fetch.BACKOFF", (0.0,))
    with pytest.raises(UserError, match=r"all mirrors failed: http://127\.0\.0\.1:1/a\.gz: ") as error:
        download("mnist")
    assert "Connection refused" in str(error.value)
    printed = capfd.readouterr()
    assert "hunter2" not in f"{printed}{error.value}"
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert {"mlflow.db", "mnist_dense.json", "mnist_dense.keras"} <= {path.name for path in files}
    assert [str(path) for path in files if b"hunter2" in path.read_bytes()] == ["params.yaml"]


def test_git_ignores_data_caches_databases_and_secrets() -> None:
    paths = [
        *("data/raw/mnist/a.gz", "data/models/a.keras", "mlflow.db", "mlruns/0/a", ".env"),
        *(".dvc/cache/files/md5/00/a", ".dvc/tmp/lock", ".dvc/config.local", ".hypothesis/a", ".pytest_cache/a"),
    ]
    ignored = run(ROOT, "git", "check-ignore", "--no-index", *paths).stdout.split()
    assert ignored == paths


def shard(clone: Path) -> Path:
    return next((clone / "data/records/mnist").glob("*-train.tfrecord-*"))


def cached(clone: Path, file: Path) -> Path:
    """The object in DVC's cache with the content of `file`."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return clone / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


@pytest.mark.slow
def test_corrupt_or_missing_cache_is_never_trained_on(tmp_path: Path) -> None:
    """DVC trusts its cache: the reader of records finds the corruption, and its message says what helps."""
    clone = clone_of_work_tree(tmp_path / "clone", lambda values: only(values, "mnist_dense"))
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    lock = (clone / "dvc.lock").read_text(encoding="utf-8")
    good = shard(clone).read_bytes()

    # A bit flips in the cache, and in the file that is a link to it. Then another model is wanted.
    file = cached(clone, shard(clone))
    file.chmod(0o644)
    file.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    file.chmod(0o444)
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    (clone / "params.yaml").write_text(text.replace("units: [100]", "units: [10]"), encoding="utf-8")
    done = run(clone, "dvc", "repro", "train@mnist_dense")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: data/records/mnist: corrupt: split 'train")
    assert "Traceback" not in done.stderr

    # The command in the message helps.
    command = re.search("`dvc (repro --force --single-item preprocess@mnist)`", line)
    assert command
    assert run(clone, "dvc", *command[1].split()).returncode == 0
    assert shard(clone).read_bytes() == good
    (clone / "params.yaml").write_text(text, encoding="utf-8")
    assert run(clone, "dvc", "repro").returncode == 0
    assert (clone / "dvc.lock").read_text(encoding="utf-8") == lock

    # A model file is corrupt, but not its object in the cache: DVC restores it.
    model = clone / "data/models/mnist_dense.keras"
    whole = model.read_bytes()
    model.unlink()
    model.write_bytes(whole[:-1000])
    assert run(clone, "dvc", "repro").returncode == 0
    assert model.read_bytes() == whole

    # An object and its link are missing: `dvc checkout` reports it, and `dvc repro` writes them again.
    cached(clone, shard(clone)).unlink()
    shard(clone).unlink()
    done = run(clone, "dvc", "checkout", "preprocess@mnist")
    assert done.returncode != 0
    assert "records/mnist" in done.stderr
    assert run(clone, "dvc", "repro").returncode == 0
    assert shard(clone).read_bytes() == good
    assert (clone / "dvc.lock").read_text(encoding="utf-8") == lock


def test_code_in_a_model_file_is_not_run(tmp_path: Path) -> None:
    """Nor does any module but the one for Ray read pickles, or run a shell."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + len(__import__("os").listdir()))])
    model.save(tmp_path / "model.keras")
    images = SplitArrays(np.array(["a"], object), np.zeros((1, 4), np.float32), np.zeros(1, np.int32))
    with pytest.raises(ValueError, match=r"safe_mode|unsafe|Lambda"):
        predict(tmp_path / "model.keras", images)
    unsafe = re.compile(
        r"\bpickle\.|import pickle|joblib|allow_pickle=True|read_pickle|safe_mode=False|enable_unsafe"
        r"|yaml\.(unsafe|full)|shell=True|os\.system"
    )
    modules = {*(ROOT / "stages").rglob("*.py"), *(ROOT / "tools").rglob("*.py")}
    for module in modules:
        assert not unsafe.search(module.read_text(encoding="utf-8")), module


@pytest.mark.parametrize(
    ("section", "entry", "stage"), [("datasets", "mnist", "download"), ("models", "mnist_dense", "train")]
)
@pytest.mark.parametrize("name", ["a; touch pwned #", '$(touch pwned)"`touch pwned`'])
def test_name_in_params_that_is_a_command_is_not_run(
    tmp_path: Path, section: str, entry: str, stage: str, name: str
) -> None:
    """DVC passes commands to a shell; names of datasets and models are not part of them."""
    clone = clone_of_work_tree(tmp_path / "clone", lambda values: only(values, "mnist_dense"))
    (clone / "data/records/mnist").mkdir(parents=True)  # DVC checks that the deps of a training exist
    write_params(clone, lambda values: values[section].update({name: values[section][entry]}))
    done = run(clone, "dvc", "repro", f"{stage}@{name}")
    assert done.returncode != 0
    assert f"error: params.yaml: {section}" in done.stderr
    assert not list(tmp_path.rglob("pwned"))
