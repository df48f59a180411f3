"""The server as its clients meet it: answers, the page in a browser, load, hostile uploads, its end."""

import asyncio
import errno
import io
import json
import os
import re
import select
import signal
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from benchmarks import serving as serving_benchmark
from stages.inference.predictor import Predictor
from stages.inference.server import bind
from tests.conftest import run
from tests.inference.browser import browser, missing
from tests.inference.container import copy_files
from tests.inference.proxy import proxy
from tests.inference.serving import THREADS, Server, image_file, save_model, serving
from tests.training.small import CLASSES

RECEIVE, ANSWER, IDLE, CONNECTIONS, MEMORY = 2, 5, 1, 100, 12_000_000
LIMITS = [
    *(f"--receive-seconds={RECEIVE}", f"--answer-seconds={ANSWER}"),
    *(f"--idle-seconds={IDLE}", f"--max-connections={CONNECTIONS}", f"--max-memory={MEMORY}"),
]
PREDICT = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    save_model(path)
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(model, model.parent, *LIMITS) as started:
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


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG file whose last scan is there `count` times."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "JPEG", progressive=True)
    start = file.getvalue().rindex(b"\xff\xda")
    return file.getvalue()[:start] + file.getvalue()[start:-2] * count + b"\xff\xd9"


def connect(server: Server, data: bytes = b"") -> socket.socket:
    """A connection on which `data` was sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    connection.close()
    return found


def test_answers_are_those_of_the_predictor_for_bodies_and_forms(server: Server, predictor: Predictor) -> None:
    files = {"a.jpg": image_file(40), "ü.png": image_file(200, "PNG"), "c.webp": image_file(90, "WEBP")}
    expected = predictor.predict(list(files.values()))
    form = requests.post(f"{server.url}/predict", files=[("files", item) for item in files.items()], timeout=60).json()
    assert (form["model"], form["source"]) == ("tiny", "synthetic")
    assert [image["name"] for image in form["images"]] == list(files)
    single = [server.predict(data, "application/octet-stream").json()["images"][0] for data in files.values()]
    for images in (form["images"], single):
        for image, row in zip(images, expected, strict=True):
            found = {one["class"]: one["probability"] for one in image["predictions"]}
            np.testing.assert_allclose([found[name] for name in CLASSES], row, atol=1e-6)
            assert image["predictions"][0]["class"] == CLASSES[row.argmax()]
            assert image["conversions"] == []
            assert image.get("verdict") == predictor.verdict(row)
    assert len(server.predict(files["a.jpg"], query="?k=1").json()["images"][0]["predictions"]) == 1


def test_head_is_answered_wherever_get_is(server: Server) -> None:
    for path in ("/", "/health", "/docs", "/openapi.json"):
        answers = [requests.request(method, f"{server.url}{path}", timeout=60) for method in ("HEAD", "GET")]
        assert [(answer.status_code, bool(answer.content)) for answer in answers] == [(200, False), (200, True)], path
    assert requests.head(f"{server.url}/predict", timeout=60).status_code == 405


def test_invalid_image_among_valid_ones_has_an_error_of_its_own(server: Server) -> None:
    files = [("files", ("a.jpg", image_file(200))), ("files", ("b.jpg", b"text"))]
    answer = requests.post(f"{server.url}/predict", files=files, timeout=60)
    first, second = answer.json()["images"]
    assert (answer.status_code, first["predictions"][0]["class"]) == (200, "bright")
    assert second == {"name": "b.jpg", "error": "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"}


@pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")
@pytest.mark.parametrize("place", ["", "/", "behind a proxy", "behind a proxy/"])
def test_page_shows_the_class_of_a_chosen_file_and_loads_nothing_from_elsewhere(
    server: Server, predictor: Predictor, tmp_path: Path, place: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(image_file(200))
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    (row,) = predictor.predict([image_file(200)])
    with browser(tmp_path / "profile") as page, proxy(server.url) as prefixed:
        base = prefixed if "proxy" in place else server.url
        page.command("/url", url=base + "/" * place.endswith("/"))
        page.type_into("#file", str(tmp_path / "photo.jpg"))
        page.wait("return !document.getElementById('result').hidden")
        shown = page.script("return document.getElementById('classes').innerText").split("\n")
        names, percents = [part for part in shown if "%" not in part], [part for part in shown if "%" in part]
        assert names == [CLASSES[label] for label in np.argsort(-row)]
        assert percents == [f"{100 * share:.1f} %" for share in -np.sort(-row)]
        said = f"{predictor.verdict(row)}: perhaps " if predictor.verdict(row) else ""
        assert page.script("return document.getElementById('status').innerText") == f"{said}{names[0]}, {percents[0]}"
        assert page.wait("return document.getElementById('overlay').naturalWidth") > 0
        page.type_into("#photo", str(tmp_path / "text.png"))
        assert "is not an image" in page.wait("return document.querySelector('#status.wrong')?.innerText")
        loaded = page.script("return performance.getEntriesByType('resource').map(one => one.name)")
        errors = page.command("/se/log", type="browser")
        assert not page.script("return document.getElementById('synthetic').hidden")
        assert f'"{base}/predict?k=3"' in page.script("return document.getElementById('command').innerText")
        page.command("/url", url=page.script("return document.getElementById('docs').href"))
        assert page.wait("return [...document.querySelectorAll('h2')].map(one => one.innerText)") == [
            "POST /predict",
            "GET /health",
        ]
        assert page.script("return document.links[1].href") == f"{base}/"
    assert {url.split("?")[0] for url in loaded if url.startswith("http")} == {
        f"{base}/health",
        f"{base}/predict",
    }
    assert [error["message"] for error in errors if "status of 400" not in error["message"]] == []


HOSTILE: dict[str, tuple[Callable[[], bytes], str, int, str]] = {
    "decompression bomb": (lambda: png(50_000), "image/png", 400, "the file has more than"),
    "more pixels than allowed": (lambda: png(8_200), "image/png", 400, "the file has 8,200 x 8,200 pixels"),
    "JPEG of many scans": (lambda: scans(2_000, 5_000), "image/jpeg", 400, "the file has 2,000 x 2,000 pixels in 5,"),
    "truncated": (lambda: image_file(9, side=99)[:-200], "image/jpeg", 400, "the file is truncated"),
    "empty": (lambda: b"", "image/jpeg", 400, "the file is not an image"),
    "HTML": (lambda: b"<script>", "text/html", 415, "'text/html' is not a type of an image"),
    "100 MB": (lambda: bytes(100_000_000), "image/png", 413, "the request has 100,000,000 bytes"),
    "form without an end": (lambda: b"--x\r\nA: b", "multipart/form-data; boundary=x", 400, ""),
    "form with too many files": (
        lambda: b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n\r\n' * 50_000,
        *("multipart/form-data; boundary=x", 400, "Too many files"),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_upload_is_refused_in_one_line_and_the_server_stays_healthy(server: Server, name: str) -> None:
    make, kind, status, message = HOSTILE[name]
    answer = server.predict(make(), kind)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert answer.json()["error"].startswith(message) and "\n" not in answer.json()["error"]
    server.assert_healthy()


def test_endless_body_without_length_is_refused(server: Server) -> None:
    sent = iter(bytes(1_000_000) for _ in range(100))
    answer = requests.post(f"{server.url}/predict", data=sent, headers={"Content-Type": "image/png"}, timeout=60)
    assert (answer.status_code, answer.json()) == (413, {"error": "the request has more than 10,000,000 bytes"})
    server.assert_healthy()


def test_slow_senders_are_closed_and_others_answered_meanwhile(server: Server) -> None:
    start = time.monotonic()
    bodies, headers, silent = (
        [connect(server, data) for _ in range(CONNECTIONS // 4)]
        for data in (PREDICT + b"Content-Length: 1000\r\n\r\n", PREDICT, b"")
    )
    for _ in range(5):  # more bytes do not buy more time
        for connection in bodies + headers:
            connection.sendall(b"x")
        server.assert_healthy()
        time.sleep(0.1)
    assert all(read_all(connection).startswith(b"HTTP/1.1 408") for connection in bodies)
    assert not any(read_all(connection) for connection in headers + silent)
    assert time.monotonic() - start < 2 * RECEIVE + ANSWER + 3


def test_request_beyond_the_memory_is_told_to_come_back_and_then_served(server: Server) -> None:
    data = image_file(200) + bytes(MEMORY // 2)
    connection = connect(server, PREDICT + f"Content-Length: {len(data) + 1}\r\n\r\n".encode() + data)
    busy = server.predict(data)
    connection.close()
    assert (busy.status_code, busy.json()) == (503, {"error": "the server is busy"})
    time.sleep(float(busy.headers["Retry-After"]))
    assert server.predict(data).json()["images"][0]["predictions"][0]["class"] == "bright"


def test_benchmark_sends_every_request_and_reads_its_answer(server: Server) -> None:
    request = serving_benchmark._request("/predict", "image/jpeg", image_file(200))
    before = server.log.read_text(encoding="utf-8").count("POST /predict")
    found = serving_benchmark._round("server", server.port, [request], clients=3, count=10)()
    assert len(found.value) == 10 and 0 < max(found.value) <= found.seconds
    assert server.log.read_text(encoding="utf-8").count("POST /predict") == before + 10


def test_connections_do_not_hold_answers_back() -> None:
    async def accept() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with bind("127.0.0.1", 0) as bound:
            async with await asyncio.start_server(on_connection, sock=bound):
                _, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
                no_delay = await accepted
                writer.close()
        return no_delay

    assert asyncio.run(accept())


def test_thousands_of_connections_are_bounded_and_close_by_themselves(server: Server) -> None:
    opened: list[socket.socket] = []
    process = psutil.Process(server.process.pid)
    try:
        for number in range(2000):
            opened.append(connect(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" if number % 2 else b""))
            if number % 500 == 499:
                server.assert_healthy()
                assert len(process.net_connections()) <= CONNECTIONS + 2
        server.assert_healthy()
        end = time.monotonic() + 10
        poll = select.poll()
        for connection in opened[1::2]:  # those that had an answer are idle now
            poll.register(connection, select.POLLRDHUP | select.POLLHUP)
        while len(poll.poll(100)) < len(opened) // 2:
            assert time.monotonic() < end
    finally:
        for connection in opened:
            connection.close()


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


def test_server_of_the_container_finishes_a_request_after_sigterm_and_ends_with_success(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()
    copy_files(tmp_path / "app", model)
    with serving(Path("tiny"), tmp_path, project=tmp_path / "app") as started:
        data = image_file(200)
        connection = connect(started, PREDICT + f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:100])
        started.assert_healthy()
        started.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(data[100:])
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body)["images"][0]["predictions"][0]["class"] == "bright"
        assert started.process.wait(60) == 0
        lines = started.log.read_text(encoding="utf-8").splitlines()
    assert [re.sub(r".* - ", "", line) for line in lines] == [
        '"GET /health HTTP/1.1" 200',
        '"POST /predict HTTP/1.1" 200',
    ]


def test_port_in_use_and_unknown_model_are_one_line(tmp_path: Path, server: Server, model: Path) -> None:
    done = run(Path.cwd(), "python", "-m", "tools.use.serve", "missing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: data/models/missing.keras: no such model")
    done = run(Path.cwd(), "python", "-m", "tools.use.serve", str(model), "--port", str(server.port))
    expected = f"error: 127.0.0.1:{server.port}: {os.strerror(errno.EADDRINUSE)}; choose another --host or --port\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_log_that_cannot_be_written_is_one_line(model: Path) -> None:
    done = run(
        Path.cwd(), "python", "-m", "tools.use.serve", str(model), "--port", "0", "--log", "missing/requests.log"
    )
    assert (done.returncode, done.stderr) == (1, f"error: missing/requests.log: {os.strerror(errno.ENOENT)}\n")
