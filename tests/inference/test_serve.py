"""The server as its clients meet it: answers, the page in a browser, load, hostile uploads, its end."""

import errno
import json
import os
import re
import signal
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from benchmarks import serving as serving_benchmark
from stages.inference.predictor import Predictor
from tests.conftest import run
from tests.inference.browser import browser, missing
from tests.inference.container import copy_files
from tests.inference.proxy import proxy
from tests.inference.serving import THREADS, Server, image_file, save_known, save_model, serving
from tests.training.small import CLASSES

CONNECTIONS = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    save_model(path)
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(model, model.parent, "--max-connections", str(CONNECTIONS)) as started:
        yield started


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model, THREADS)


def png(side: int) -> bytes:
    """A small file of a black image with side × side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(1), bytes(side // 8 + 1)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def connect(server: Server, data: bytes = b"") -> socket.socket:
    """A connection on which `data` was sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes."""
    found = b""
    while data := connection.recv(65536):
        found += data
    connection.close()
    return found


def test_answers_are_those_of_the_predictor(server: Server, predictor: Predictor) -> None:
    files = {"a.jpg": image_file(40), "ü.png": image_file(200, "PNG"), "c.webp": image_file(90, "WEBP")}
    expected = predictor.answer(np.stack([predictor.decode(data)[0] for data in files.values()]))
    form = requests.post(f"{server.url}/predict", files=[("files", item) for item in files.items()], timeout=60).json()
    assert (form["model"], form["source"]) == ("tiny", "synthetic")
    assert [image["name"] for image in form["images"]] == list(files)
    for image, (row, verdict) in zip(form["images"], expected, strict=True):
        found = {one["class"]: one["probability"] for one in image["predictions"]}
        np.testing.assert_allclose([found[name] for name in CLASSES], row, atol=1e-6)
        assert image["predictions"][0]["class"] == CLASSES[row.argmax()]
        assert image["conversions"] == []
        assert image.get("verdict") == verdict
    assert len(server.predict(files["a.jpg"], query="?k=1").json()["images"][0]["predictions"]) == 1


def test_head_is_answered_wherever_monitors_send_it(server: Server) -> None:
    for path in ("/", "/health"):
        answers = [requests.request(method, f"{server.url}{path}", timeout=60) for method in ("HEAD", "GET")]
        assert [(answer.status_code, bool(answer.content)) for answer in answers] == [(200, False), (200, True)], path
    assert requests.head(f"{server.url}/predict", timeout=60).status_code == 405


def test_interface_is_described_by_openapi(server: Server) -> None:
    paths = requests.get(f"{server.url}/openapi.json", timeout=60).json()["paths"]
    assert {path: list(methods) for path, methods in paths.items()} == {"/predict": ["post"], "/health": ["get"]}


def test_invalid_image_among_valid_ones_has_an_error_of_its_own(server: Server) -> None:
    answer = server.predict(image_file(200), b"text")
    first, second = answer.json()["images"]
    assert (answer.status_code, first["predictions"][0]["class"]) == (200, "bright")
    assert second == {"name": "1.jpg", "error": "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"}


@pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")
@pytest.mark.parametrize("place", ["", "/", "behind a proxy", "behind a proxy/"])
def test_page_shows_the_class_of_a_chosen_file_and_loads_nothing_from_elsewhere(
    server: Server, predictor: Predictor, tmp_path: Path, place: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(image_file(200))
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    ((row, verdict),) = predictor.answer(predictor.decode(image_file(200))[0][np.newaxis])
    with browser(tmp_path / "profile") as page, proxy(server.url) as prefixed:
        base = prefixed if "proxy" in place else server.url
        page.command("/url", url=base + "/" * place.endswith("/"))
        page.type_into("#file", str(tmp_path / "photo.jpg"))
        page.wait("return !document.getElementById('result').hidden")
        shown = page.script("return document.getElementById('classes').innerText").split("\n")
        names, percents = [part for part in shown if "%" not in part], [part for part in shown if "%" in part]
        assert names == [CLASSES[label] for label in np.argsort(-row)]
        assert percents == [f"{100 * share:.1f} %" for share in -np.sort(-row)]
        said = f"{verdict}: perhaps " if verdict else ""
        assert page.script("return document.getElementById('status').innerText") == f"{said}{names[0]}, {percents[0]}"
        assert page.wait("return document.getElementById('overlay').naturalWidth") > 0
        page.type_into("#photo", str(tmp_path / "text.png"))
        assert "is not an image" in page.wait("return document.querySelector('#status.wrong')?.innerText")
        loaded = page.script("return performance.getEntriesByType('resource').map(one => one.name)")
        errors = page.command("/se/log", type="browser")
        assert not page.script("return document.getElementById('synthetic').hidden")
        assert f'"{base}/predict?k=3"' in page.script("return document.getElementById('command').innerText")
        page.command("/url", url=page.script("return document.getElementById('docs').href"))
        assert "/predict" in page.wait("return document.body.innerText")
    assert {url.split("?")[0] for url in loaded if url.startswith("http")} == {
        f"{base}/health",
        f"{base}/predict",
    }
    assert [error["message"] for error in errors if "status of 400" not in error["message"]] == []


def test_image_unlike_every_class_is_none_of_these_in_the_answer_and_on_the_page(tmp_path: Path) -> None:
    save_known(tmp_path / "known.keras")
    half = Image.new("L", (24, 24))
    half.paste(255, (0, 0, 24, 12))
    half.save(tmp_path / "half.png")
    with serving(tmp_path / "known.keras", tmp_path) as server:
        files = image_file(200), (tmp_path / "half.png").read_bytes()
        known, unlike = (image.get("verdict") for image in server.predict(*files).json()["images"])
        assert (known, unlike) == (None, "none of these")
        if missing():
            return
        with browser(tmp_path / "profile") as page:
            page.command("/url", url=server.url)
            page.type_into("#file", str(tmp_path / "half.png"))
            page.wait("return !document.getElementById('result').hidden")
            said = page.script("return document.getElementById('status').innerText")
            assert re.fullmatch(r"none of these; most like (dark|bright), [0-9.]+ %", said)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "decompression bomb": (lambda: png(50_000), "0.jpg: the file has more than"),
    "more pixels than allowed": (lambda: png(8_200), "0.jpg: the file has 8,200 x 8,200 pixels"),
    "truncated": (lambda: image_file(9, side=99)[:-200], "0.jpg: the file is truncated"),
    "empty": (lambda: b"", "0.jpg: the file is not an image"),
    "HTML": (lambda: b"<script>", "0.jpg: the file is not an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_image_is_refused_in_one_line_and_the_server_stays_healthy(server: Server, name: str) -> None:
    make, message = HOSTILE[name]
    answer = server.predict(make())
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])
    assert answer.json()["detail"].startswith(message) and "\n" not in answer.json()["detail"]
    server.assert_healthy()


def test_request_that_is_no_form_of_some_images_or_too_large_is_refused(server: Server) -> None:
    assert server.predict(bytes(20_000_000)).status_code == 413
    assert server.predict(*[b""] * 33).status_code == 422
    answer = server.predict(*[png(8_100)] * 5)
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "the images have 328,050,000 pixels together, more than 268,435,456; send fewer at a time, or smaller ones",
    )
    assert requests.post(f"{server.url}/predict", data=image_file(9), timeout=60).status_code == 422
    endless = iter(bytes(1_000) for _ in range(100))
    assert requests.post(f"{server.url}/predict", data=endless, timeout=60).status_code == 411
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:  # chunks may be of any length
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 411")
    for body in (b"--x\r\nA: b", b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n' * 5_000):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        assert requests.post(f"{server.url}/predict", data=body, headers=headers, timeout=60).status_code in (400, 422)
    server.assert_healthy()


def test_work_of_clients_that_have_gone_is_dropped(server: Server) -> None:
    """It is that of eight requests with 16 large images, which take seconds each."""
    form = [("files", ("0.png", png(4_000)))] * 16

    def leave(_: int) -> None:
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{server.url}/predict", files=form, timeout=(5, 0.2))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(8)))
    start = time.monotonic()
    assert server.predict(image_file(200)).status_code == 200
    assert time.monotonic() - start < 5


def test_too_many_connections_are_answered_at_once_and_the_server_recovers(server: Server) -> None:
    opened = [connect(server) for _ in range(CONNECTIONS + 5)]
    assert requests.get(f"{server.url}/health", timeout=60).status_code == 503
    for connection in opened:
        connection.close()
    server.assert_healthy()


def test_benchmark_sends_every_request_and_reads_its_answer(server: Server) -> None:
    request = serving_benchmark._form("/predict", image_file(200))
    before = server.log.read_text(encoding="utf-8").count("POST /predict")
    found = serving_benchmark._round("server", server.port, [request], clients=3, count=10)()
    assert len(found.value) == 10 and 0 < max(found.value) <= found.seconds
    assert server.log.read_text(encoding="utf-8").count("POST /predict") == before + 10


def test_64_clients_get_the_same_answers_as_one_after_the_other(server: Server) -> None:
    files = [image_file(level) for level in range(0, 256, 4)]
    alone = [server.predict(data).json() for data in files]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda data: server.predict(data).json(), files))
    for one, other in zip(alone, together, strict=True):
        one, other = one["images"][0]["predictions"], other["images"][0]["predictions"]
        assert [found["class"] for found in one] == [found["class"] for found in other]
        np.testing.assert_allclose(
            [found["probability"] for found in one], [found["probability"] for found in other], atol=1e-6
        )


def test_server_of_the_container_finishes_a_request_after_sigterm(model: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    copy_files(tmp_path / "app", model)
    with serving(Path("tiny"), tmp_path, project=tmp_path / "app") as started:
        request = serving_benchmark._form("/predict", image_file(200))
        connection = connect(started, request[:300])
        started.assert_healthy()
        started.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(request[300:])
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body)["images"][0]["predictions"][0]["class"] == "bright"
        assert started.process.wait(60) in (0, -signal.SIGTERM)
        assert "Traceback" not in started.log.read_text(encoding="utf-8")


def test_port_in_use_and_unknown_model_are_one_line(server: Server, model: Path) -> None:
    done = run(Path.cwd(), "python", "-m", "tools.use.serve", "missing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: data/models/missing.keras: no such model")
    done = run(Path.cwd(), "python", "-m", "tools.use.serve", str(model), "--port", str(server.port))
    expected = f"error: 127.0.0.1:{server.port}: {os.strerror(errno.EADDRINUSE)}; choose another --host or --port\n"
    assert (done.returncode, done.stderr) == (1, expected)
