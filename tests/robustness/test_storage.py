"""Data in object storage: a server with the S3 protocol on 127.0.0.1, and two clones."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import clone_of_work_tree, commit, only, run

pytest.importorskip("dvc_s3", reason="needs requirements-cluster.txt: `make test-cluster`")
server = pytest.importorskip("moto.server", reason="needs requirements-cluster.txt: `make test-cluster`")

BUCKET = "records"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server with an empty bucket."""
    import boto3

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
    yield url
    running.stop()


def dvc(folder: Path, *arguments: str) -> str:
    done = run(folder, "dvc", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_clone_pulls_only_what_it_needs(tmp_path: Path, storage: str) -> None:
    first = clone_of_work_tree(tmp_path / "first", lambda values: only(values, "mnist_dense", "mnist_cnn"))
    dvc(first, "repro")
    dvc(first, "remote", "add", "-d", "storage", f"s3://{BUCKET}/dvc")
    dvc(first, "remote", "modify", "storage", "endpointurl", storage)
    assert "pushed" in dvc(first, "push")
    commit(first, "reproduced")

    second = tmp_path / "second"
    assert run(tmp_path, "git", "clone", "-q", str(first), str(second)).returncode == 0
    text = (second / "params.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values["models"]["mnist_dense"]["units"] = [99]
    (second / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    printed = dvc(second, "repro", "--pull", "--allow-missing", "evaluate@mnist_dense")
    assert re.findall("Running stage '(.*)'", printed) == ["check", "train@mnist_dense", "evaluate@mnist_dense"]
    assert (second / "data/records/mnist").exists()
    assert not (second / "data/raw/mnist").exists() and not (second / "data/models/mnist_cnn.keras").exists()

    (second / "params.yaml").write_text(text, encoding="utf-8")
    dvc(second, "pull")
    model = "data/models/mnist_cnn.keras"
    assert (second / model).read_bytes() == (first / model).read_bytes()
    dvc(second, "repro", "--pull")
    assert (second / "dvc.lock").read_text(encoding="utf-8") == (first / "dvc.lock").read_text(encoding="utf-8")
