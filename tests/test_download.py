"""The stage download as a command: all files or none, and no download of a file that this machine has."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from stages import download
from stages.config import params
from stages.config.datasets import MirrorConfig
from stages.runtime.cli import INTERRUPTED
from stages.runtime.errors import UserError
from tests.conftest import ROOT, SAMPLE, copy_work_tree, run
from tests.data.mirror_server import BODY, CUT, PAGE, Server, mirror, send, send_range, serve

MIRROR = {"url": "file:///nowhere", "hash": "md5:" + "0" * 32}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as running:
        yield running


def _dump(values: Any, path: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False  # the C parser takes no URL without quotes in a flow mapping
    yaml.dump(values, path)


def write_entry(folder: Path, files: dict[str, list[MirrorConfig]]) -> None:
    """Write params.yaml to `folder` with `files` as its only entry: weights named net."""
    values = YAML(typ="safe", pure=True).load(SAMPLE / "params.yaml")
    listed = {file: [one.model_dump() for one in mirrors] for file, mirrors in files.items()}
    values |= {
        "source": "real",
        "datasets": {},
        "features": {},
        "not_in_pretraining": {},
        "models": {},
        "gates": {},
        "search": {},
        "weights": {"net": {"files": listed}},
    }
    _dump(values, folder / "params.yaml")


def command(folder: Path, name: str, files: dict[str, list[MirrorConfig]]) -> "subprocess.CompletedProcess[str]":
    """`python -m stages.download NAME` in `folder`, with the weights of `params_of`."""
    write_entry(folder, files)
    return subprocess.run(
        [sys.executable, "-m", "stages.download", name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files below data/raw, hidden ones too."""
    raw = folder / "data" / "raw"
    return {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def test_command_writes_exactly_the_files_of_params(server: Server, tmp_path: Path) -> None:
    """Files of an earlier run are removed."""
    stale = tmp_path / "data" / "raw" / "net" / "stale"
    stale.parent.mkdir(parents=True)
    stale.touch()
    local = tmp_path / "local"
    local.write_bytes(BODY)
    files = {"one.h5": [mirror(server.at("/a", send(BODY)))], "two.h5": [mirror(local.as_uri())]}
    result = command(tmp_path, "net", files)
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(tmp_path) == {"net/one.h5": BODY, "net/two.h5": BODY}
    assert server.url + "/a" in result.stdout


def size_of(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.usefixtures("ctrl_c")
def test_download_after_ctrl_c_leaves_no_data_and_continues(server: Server, tmp_path: Path) -> None:
    asleep = threading.Event()

    def stalled(handler: BaseHTTPRequestHandler) -> None:
        send(BODY, cut=CUT)(handler)
        handler.wfile.flush()
        asleep.wait(30)

    entry = {"one.h5": [mirror(server.at("/a", stalled, send_range(BODY)))]}
    write_entry(tmp_path, entry)
    with subprocess.Popen(
        [sys.executable, "-m", "stages.download", "net"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            while process.poll() is None and not any(map(size_of, tmp_path.glob(".dvc/tmp/downloads/*"))):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
        finally:
            asleep.set()
            process.kill()
    assert process.returncode == 1
    assert errors == INTERRUPTED + "\n"
    assert list((tmp_path / "data/raw").iterdir()) == []
    (part,) = tmp_path.glob(".dvc/tmp/downloads/*")
    size = size_of(part)
    assert command(tmp_path, "net", entry).returncode == 0
    assert (tmp_path / "data/raw/net/one.h5").read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={size}-"]


def test_failed_mirrors_are_one_line_and_leave_data_unchanged(server: Server, tmp_path: Path) -> None:
    """All or nothing: the first file, which is valid, is not kept either."""
    (tmp_path / "data/raw/net").mkdir(parents=True)
    (tmp_path / "data/raw/net/one.h5").write_bytes(b"of the last run")
    bad = [mirror(server.at("/a", send(PAGE))), mirror(server.url + "/missing"), mirror("file:///nowhere/at/all")]
    result = command(tmp_path, "net", {"one.h5": [mirror(server.at("/good", send(BODY)))], "two.h5": bad})
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: two.h5: ")
    assert all(one.url in line for one in bad)
    assert "/good" not in line
    assert contents(tmp_path) == {"net/one.h5": b"of the last run"}
    assert [path.name for path in (tmp_path / "data/raw").iterdir()] == ["net"]


def test_without_a_network_there_is_one_attempt_one_message_and_an_entry_to_paste(tmp_path: Path) -> None:
    hosts = [f"https://{name}.invalid" for name in ("one", "two")]
    local = tmp_path / "home: #1/Downloads/one.h5"
    local.parent.mkdir(parents=True)
    local.write_bytes(BODY)
    write_entry(tmp_path, {"one.h5": [mirror(f"{host}/a.h5") for host in hosts]})
    offline = {"PYTHONPATH": str(ROOT), "HOME": str(local.parents[1]), "NO_PROXY": "*"}
    done = run(tmp_path, sys.executable, "-m", "stages.download", "net", **offline)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "attempts" not in line
    for host in hosts:
        assert done.stdout.count(f"{host}/a.h5: ") <= 1 and line.count(f"{host}/a.h5: there is no network") == 1
    _, _, entry = line.partition(" name a copy of the file there: ")
    file = tmp_path / "params.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    (last,) = (number for number, text in enumerate(lines) if hosts[-1] in text)
    lines.insert(last + 1, f"{lines[last].partition('-')[0]}{entry}\n")
    file.write_text("".join(lines), encoding="utf-8")
    with modify_yaml(str(file)) as values:  # which writes all of the file anew, as `make real` and `make measure` do
        values["seed"] = 7
    done = run(tmp_path, sys.executable, "-m", "stages.download", "net", **offline)
    assert (done.returncode, contents(tmp_path)) == (0, {"net/one.h5": BODY})


def write_datasets(folder: Path, change: Callable[[Any], None]) -> None:
    """Write params.yaml to `folder` with its datasets and weights only, and what `change` does to it."""
    values = YAML(typ="safe", pure=True).load(SAMPLE / "params.yaml")
    for dataset in values["datasets"].values():
        dataset["synthetic"] = {"train": 20, "test": 10}
    values |= {"features": {}, "not_in_pretraining": {}, "models": {}, "gates": {}, "search": {}}
    change(values)
    _dump(values, folder / "params.yaml")


def test_synthetic_dataset_is_generated_without_its_mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_datasets(tmp_path, lambda values: None)
    monkeypatch.chdir(tmp_path)
    download.download("mnist")
    assert set(contents(tmp_path)) == {f"mnist/{file}" for file in params.load().datasets["mnist"].files}


def test_dataset_without_synthetic_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = tmp_path / "local"
    local.write_bytes(BODY)

    def change(values: Any) -> None:
        values["datasets"]["mnist"] |= {"synthetic": None, "files": {"a.gz": [mirror(local.as_uri()).model_dump()]}}

    write_datasets(tmp_path, change)
    monkeypatch.chdir(tmp_path)
    download.download("mnist")
    assert contents(tmp_path) == {"mnist/a.gz": BODY}
    assert capsys.readouterr().out.endswith("data/raw/mnist: complete, verified\n")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "net",
            {},
            "weights.net.synthetic: there is no generator stages/data/synthetic/net.py; write it, or set it to ",
        ),
        ("mnist", {"a.gz": [MIRROR]}, "datasets.mnist.files: the synthetic files are train-images-idx3-ubyte.gz, "),
        (
            "cifar10",
            {"a.zip": [MIRROR]},
            "datasets.cifar10.files: the synthetic files are NAME.tar.gz; name them like that",
        ),
        ("imagenette", {"a.tgz": [MIRROR], "b.tgz": [MIRROR]}, "imagenette.files: the synthetic files are a.tgz; name"),
    ],
)
def test_data_that_cannot_be_generated_name_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any], message: str
) -> None:
    def apply(values: Any) -> None:
        values["weights"]["net"] = values["weights"]["vgg16"]
        if change:
            values["datasets"][name]["files"] = change

    write_datasets(tmp_path, apply)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        download.download(name)
    assert str(raised.value).isprintable()
    assert not Path("data/raw").exists() or not list(Path("data/raw").iterdir())


def repository(folder: Path, url: str) -> None:
    """A DVC repository whose only stage downloads weights from `url`, with the code as its dep."""
    copy_work_tree(folder)
    write_entry(folder, {"one.h5": [mirror(url)]})
    stage = {
        "cmd": 'python -E -X utf8 -m stages.download "$DVC_STAGE"',
        "params": ["weights.net"],
        "deps": ["stages/data/real"],
        "outs": ["data/raw/net"],
    }
    values = {"stages": {"download_weights": {"foreach": ["net"], "do": stage}}}
    _dump(values, folder / "dvc.yaml")
    (folder / "dvc.lock").unlink()


def test_code_change_reruns_without_a_request(server: Server, tmp_path: Path) -> None:
    """`dvc repro` removes data/raw before it runs the stage: the file is linked from DVC's cache."""
    repository(tmp_path, server.at("/one.h5", send(BODY)))
    first = run(tmp_path, "dvc", "repro")
    assert (first.returncode, len(server.requests)) == (0, 1), first.stderr
    with (tmp_path / "stages/data/real/fetch.py").open("a", encoding="utf-8") as file:
        file.write("# A comment\n")
    second = run(tmp_path, "dvc", "repro")
    assert second.returncode == 0, second.stderr
    assert "Running stage 'download_weights@net'" in second.stdout
    assert "one.h5: found in DVC's cache" in second.stdout
    assert len(server.requests) == 1
    path = tmp_path / "data/raw/net/one.h5"
    assert path.read_bytes() == BODY
    assert run(tmp_path, "dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_unknown_name_is_answered_with_the_known_ones(project: Path) -> None:
    with pytest.raises(UserError, match="datasets and weights: there is no 'mnits'; did you mean 'mnist'"):
        download.download("mnits")
    assert not (project / "data").exists()
