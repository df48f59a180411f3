"""stages/download.py against a real server on this machine that behaves as the ones out there do."""

import fcntl
import gzip
import hashlib
import os
import pty
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from ruamel.yaml import YAML

from stages import download
from stages.console import UserError
from stages.params import Source

ROOT = Path(__file__).parent.parent
BODY = random.Random(0).randbytes(5 * download.CHUNK + 17)
CUT = 3 * download.CHUNK + 5  # where a connection breaks
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """What each path replies, one reply a request, the last one for ever; and the requests that came."""

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def at(self, path: str, *replies: Reply) -> str:
        """The URL of `path`, which gives these replies from now on."""
        self.replies[path] = list(replies)
        return self.url + path

    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [headers.get("Range") for _, headers in self.requests]


def send(body: bytes, status: int = 200, cut: int | None = None, length: int | None = None, **headers: str) -> Reply:
    """The whole body, whatever was asked for; `cut`: the connection closes after so many bytes; `length`: a lie."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body[:cut])

    return reply


def send_range(body: bytes) -> Reply:
    """From the byte that was asked for."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        send(body[start:], 206, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")(handler)

    return reply


def send_range_or_all(body: bytes) -> Reply:
    """As a server that knows ranges."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        (send_range if "Range" in handler.headers else send)(body)(handler)

    return reply


@pytest.fixture
def server() -> Iterator[Server]:
    """A server without replies: 404 for everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            scripted.requests.append((self.path, dict(self.headers)))
            replies = scripted.replies.get(path, [send(b"no such page", 404)])
            (replies.pop(0) if len(replies) > 1 else replies[0])(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        scripted = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield scripted
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF", (0.0, 0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses: bound, so that nobody else gets it, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def source(url: str, body: bytes = BODY, algorithm: str = "sha256") -> Source:
    """The URL with the hash of `body`."""
    return Source(url=url, hash=f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")


def fetched(folder: Path, *sources: Source) -> bytes:
    """What the sources give."""
    download.fetch(folder / "file.gz", list(sources))
    return (folder / "file.gz").read_bytes()


def refused(folder: Path, *sources: Source) -> str:
    """The error message for sources none of which is good."""
    with pytest.raises(UserError) as error:
        download.fetch(folder / "file.gz", list(sources))
    assert not list(folder.iterdir())
    assert "\n" not in str(error.value)
    return str(error.value)


def refused_after(folder: Path, *sources: Source) -> str:
    """The same in a folder that has the file from an earlier, good source."""
    (folder / "file.gz").unlink()
    return refused(folder, *sources)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_good_file(server: Server, tmp_path: Path, algorithm: str) -> None:
    """The hash beside the URL decides, whichever of the two kinds it is."""
    assert fetched(tmp_path, source(server.at("/a", send(BODY)), algorithm=algorithm)) == BODY
    url = server.at("/a", send(BODY[:-1]))
    assert "wrong hash" in refused_after(tmp_path, source(url, algorithm=algorithm))


def test_file_url(tmp_path: Path) -> None:
    """A local file is verified like any other."""
    there = tmp_path / "with space" / "b"
    there.parent.mkdir()
    there.write_bytes(BODY)
    assert fetched(tmp_path, source(there.as_uri())) == BODY
    there.write_bytes(BODY[1:])
    with pytest.raises(UserError, match="wrong hash"):
        fetched(tmp_path, source(there.as_uri()))


@pytest.mark.parametrize(
    ("url", "why"),
    [("file://data/file.gz", "three slashes"), ("file:///tmp", "Is a directory"), ("file:///a%00b", "not a path")],
)
def test_file_url_of_no_file(tmp_path: Path, url: str, why: str) -> None:
    """A source like any other bad one: no traceback."""
    assert why in refused(tmp_path, source(url))


def test_resumes_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    """What came is kept and counts for the hash."""
    url = server.at("/a", send(BODY, cut=CUT), send_range(BODY))
    assert fetched(tmp_path, source(url)) == BODY
    first, second = server.ranges()
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= CUT


@pytest.mark.parametrize("body", [BODY, BODY[:9]])  # the file may have been replaced by a shorter one meanwhile
def test_starts_over_where_the_server_ignores_range(server: Server, tmp_path: Path, body: bytes) -> None:
    """A 200 after a Range is the whole file, not its rest."""
    url = server.at("/a", send(BODY, cut=CUT), send(body))
    assert fetched(tmp_path, source(url, body)) == body
    assert server.ranges()[1] is not None


@pytest.mark.parametrize(
    "answer", [send(BODY[7:], 206, Content_Range=f"bytes 7-{len(BODY) - 1}/{len(BODY)}"), send(b"", 416)]
)
def test_starts_over_where_the_range_is_another(server: Server, tmp_path: Path, answer: Reply) -> None:
    """A 206 for another byte, or a 416, cannot be appended."""
    url = server.at("/a", send(BODY, cut=CUT), answer, send(BODY))
    assert fetched(tmp_path, source(url)) == BODY
    assert [asked is None for asked in server.ranges()] == [True, False, True]


def reset(body: bytes, after: int) -> Reply:
    """So many bytes of the body, then the connection is reset: not closed, as `cut` is."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        send(body, cut=after)(handler)
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return reply


def test_resumes_after_a_reset(server: Server, tmp_path: Path) -> None:
    """What came before a reset may be lost, but nothing twice."""
    url = server.at("/a", reset(BODY, CUT), send_range_or_all(BODY))
    assert fetched(tmp_path, source(url)) == BODY
    server.at("/a", reset(BODY, CUT))
    assert "broken off" in refused_after(tmp_path, source(url))


def test_a_stalled_server_is_left(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its reply, and in the midst of it."""
    monkeypatch.setattr(download, "TIMEOUT", (0.3, 0.3))
    monkeypatch.setattr(download, "BACKOFF", (0.0,))
    asleep = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        asleep.wait(30)

    def stalled(handler: BaseHTTPRequestHandler) -> None:
        send(BODY, cut=CUT)(handler)
        handler.wfile.flush()
        asleep.wait(30)

    started = time.monotonic()
    try:
        bad = [source(server.at("/silent", silent)), source(server.at("/stalled", stalled))]
        assert fetched(tmp_path, *bad, source(server.at("/good", send(BODY)))) == BODY
        message = refused_after(tmp_path, *bad)
    finally:
        asleep.set()
    assert "no connection" in message
    assert "broken off after" in message
    assert time.monotonic() - started < 10


def test_a_slow_server_is_waited_for(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is for the time without a byte, not for the whole."""
    monkeypatch.setattr(download, "TIMEOUT", (0.5, 0.5))

    def slow(handler: BaseHTTPRequestHandler) -> None:
        send(BODY, cut=0)(handler)
        for start in range(0, len(BODY), 40_000):
            handler.wfile.write(BODY[start : start + 40_000])
            handler.wfile.flush()
            time.sleep(0.1)

    started = time.monotonic()
    assert fetched(tmp_path, source(server.at("/a", slow))) == BODY
    assert time.monotonic() - started > 0.5
    assert len(server.requests) == 1


def test_gives_up_on_a_connection_that_always_breaks(server: Server, tmp_path: Path) -> None:
    """Attempts are bounded."""
    assert "broken off" in refused(tmp_path, source(server.at("/a", send(BODY, cut=CUT))))
    assert len(server.requests) == 1 + len(download.BACKOFF)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_tries_again_after(server: Server, tmp_path: Path, status: int) -> None:
    """A status that says `later` is not the end of the source."""
    url = server.at("/a", send(b"", status), send(b"", status), send(BODY))
    assert fetched(tmp_path, source(url)) == BODY


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (send(BODY[::-1]), "wrong hash"),
        (send(BODY[:-1]), "wrong hash"),
        (send(BODY + b"more"), "wrong hash"),
        (send(BODY, length=len(BODY) - 1), "wrong hash"),
        (send(BODY, length=len(BODY) + 1), "broken off"),
        (send(gzip.compress(BODY), Content_Encoding="gzip"), "wrong hash"),  # by a proxy that was not asked to
        (send(PAGE, Content_Type="text/html"), "an HTML page"),
        (send(b"gone", 404), "HTTP 404"),
        (send(b"", 403), "HTTP 403"),
        (send(b"", 500), "HTTP 500"),
        (send(BODY, 206), "HTTP 206"),
        (send(b"", 302, Location="file:///etc/hostname"), "redirect to file"),
        (send(b"", 302, Location="ftp://127.0.0.1/a"), "redirect to ftp"),
        (send(b"", 302, Location="/bad"), "TooManyRedirects"),
        (send(b"", 302, Location="http://[bad"), "ValueError"),
    ],
)
def test_goes_on_to_the_next_source(server: Server, tmp_path: Path, bad: Reply, why: str) -> None:
    """Each fault moves on to the next source, and is reported where there is none."""
    first = source(server.at("/bad", bad))
    assert fetched(tmp_path, first, source(server.at("/good", send(BODY)))) == BODY
    message = refused_after(tmp_path, first)
    assert why in message
    assert "file.gz" in message
    assert first.url in message


def test_goes_on_from_a_missing_file_and_a_refused_connection(server: Server, tmp_path: Path, closed_port: int) -> None:
    """The faults that come before any reply."""
    bad = [source((tmp_path / "missing").as_uri()), source(f"http://127.0.0.1:{closed_port}/a")]
    assert fetched(tmp_path, *bad, source(server.at("/good", send(BODY)))) == BODY
    message = refused_after(tmp_path, *bad)
    assert "No such file or directory" in message
    assert "Connection refused" in message


def test_follows_a_few_redirects(server: Server, tmp_path: Path) -> None:
    """Redirects are followed, but not for ever."""
    url = server.at("/a", send(b"", 301, Location=server.at("/b", send(b"", 307, Location="/c"))))
    server.at("/c", send(BODY))
    assert fetched(tmp_path, source(url)) == BODY
    server.requests.clear()
    server.at("/c", send(b"", 302, Location="/a"))
    refused_after(tmp_path, source(url))
    assert len(server.requests) == 1 + download.MAX_REDIRECTS


def certificate(folder: Path) -> Path:
    """A self-signed one for this machine, with its key."""
    file = folder / "certificate.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", *kind, *name, "-keyout", str(file), "-out", str(folder / "public.pem")],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + (folder / "public.pem").read_text())
    return file


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_verified(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nobody vouches for is left; one that is vouched for is not, but does not lead to http."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = tmp_path / "certificates"
    folder.mkdir()
    context.load_cert_chain(certificate(folder))
    plain = server.at("/plain", send(BODY))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (send(b"", 302, Location=plain) if self.path == "/away" else send(BODY))(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """That the other side hangs up is what the test is about."""

    files = tmp_path / "files"
    files.mkdir()
    with Quiet(("127.0.0.1", 0), Handler) as https:
        https.socket = context.wrap_socket(https.socket, server_side=True)
        thread = threading.Thread(target=https.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"https://127.0.0.1:{https.server_port}"
            assert "certificate verify failed" in refused(files, source(url + "/a"))
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "public.pem"))
            assert fetched(files, source(url + "/a")) == BODY
            assert "a redirect to http, which is not followed" in refused_after(files, source(url + "/away"))
        finally:
            https.shutdown()
            thread.join()


@pytest.mark.parametrize(("target", "followed"), [("http://host/b", False), ("//host/b", True), ("/b", True)])
def test_never_leaves_https(target: str, followed: bool) -> None:
    """Of every kind of address, asked of the session itself."""
    response = requests.Response()
    response.url, response.status_code = "https://host/a", 302
    response.headers["Location"] = target
    if followed:
        assert download.Session().get_redirect_target(response) == target
    else:
        with pytest.raises(download.Unusable, match="redirect to http"):
            download.Session().get_redirect_target(response)


def test_progress_bar_on_a_terminal(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is none elsewhere is asserted of the command below, whose stderr is empty."""
    ours, theirs = pty.openpty()
    # tqdm draws nothing on a terminal without a width: 24 lines, 100 columns.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    os.set_blocking(ours, False)
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        fetched(tmp_path, source(server.at("/a", send(BODY))))
        assert b"0%|" in (screen.read(4096) or b"")


def test_bytes_stay_as_sent(server: Server, tmp_path: Path) -> None:
    """A Content-Encoding is not undone: the hash is of the archive, not of what is in it."""
    body = gzip.compress(BODY)
    url = server.at("/a", send(body, Content_Encoding="gzip"))
    assert fetched(tmp_path, source(url, body)) == body
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_secrets_are_not_printed(
    server: Server, tmp_path: Path, closed_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are sent, but are in no message, whatever fails."""
    secret = "user:hunter2@127.0.0.1:{}{}?token=hunter2"
    port = int(server.url.rpartition(":")[2])
    server.at("/broken", send(BODY, cut=CUT))
    server.at("/redirect", send(b"", 302, Location=f"http://user:hunter2@127.0.0.1:{closed_port}/?hunter2"))
    sources = [
        *(source("http://" + secret.format(port, path)) for path in ("/a", "/broken", "/redirect")),
        source("http://" + secret.format(closed_port, "/b")),
        source("http://" + secret.format("x", "/c")),  # not a port
    ]
    message = refused(tmp_path, *sources)
    printed = capfd.readouterr()
    assert f"http://127.0.0.1:{port}/a: HTTP 404" in message
    assert f"http://127.0.0.1:{closed_port}/b: " in message
    assert "hunter2" not in message + printed.out + printed.err
    assert server.requests[0][0] == "/a?token=hunter2"
    assert "Authorization" in server.requests[0][1]


def params_of(folder: Path, files: dict[str, list[Source]]) -> None:
    """Write params.yaml's own values to `folder`, but `files` as the only weights, named net, and nothing else."""
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    listed = {file: [one.model_dump() for one in sources] for file, sources in files.items()}
    values |= {
        "source": "published",
        "datasets": {},
        "features": {},
        "models": {},
        "gates": {},
        "weights": {"net": {"files": listed}},
    }
    YAML(typ="safe", pure=True).dump(values, folder / "params.yaml")


def command(folder: Path, name: str, files: dict[str, list[Source]]) -> "subprocess.CompletedProcess[str]":
    """`python -m stages.download NAME` in `folder`, with the weights of `params_of`."""
    params_of(folder, files)
    return subprocess.run(
        [sys.executable, "-m", "stages.download", name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files below data/raw, hidden ones too."""
    raw = folder / "data" / "raw"
    return {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def test_command_writes_exactly_the_files(server: Server, tmp_path: Path) -> None:
    """What an earlier run left is gone; nothing but the files is there."""
    stale = tmp_path / "data" / "raw" / "net" / "stale"
    stale.parent.mkdir(parents=True)
    stale.touch()
    local = tmp_path / "local"
    local.write_bytes(BODY)
    files = {"one.h5": [source(server.at("/a", send(BODY)))], "two.h5": [source(local.as_uri())]}
    result = command(tmp_path, "net", files)
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(tmp_path) == {"net/one.h5": BODY, "net/two.h5": BODY}
    assert server.url + "/a" in result.stdout


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """In the midst of a file whose rest does not come."""
    asleep = threading.Event()

    def stalled(handler: BaseHTTPRequestHandler) -> None:
        send(BODY, cut=CUT)(handler)
        handler.wfile.flush()
        asleep.wait(30)

    params_of(tmp_path, {"one.h5": [source(server.at("/a", stalled))]})
    with subprocess.Popen(
        [sys.executable, "-m", "stages.download", "net"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not list(tmp_path.rglob("one.h5")):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
        finally:
            asleep.set()
            process.kill()
    assert process.returncode == 1
    assert errors == "interrupted: `dvc repro` goes on from the last finished stage\n"
    assert list((tmp_path / "data/raw").iterdir()) == []


@pytest.mark.parametrize("before", [{}, {"net/one.h5": b"of the last run"}])
def test_command_fails_in_one_line_and_leaves_data_as_it_was(
    server: Server, tmp_path: Path, before: dict[str, bytes]
) -> None:
    """All or nothing: the good first file is not kept either."""
    for path, body in before.items():
        (tmp_path / "data" / "raw" / path).parent.mkdir(parents=True)
        (tmp_path / "data" / "raw" / path).write_bytes(body)
    bad = [source(server.at("/a", send(PAGE))), source(server.url + "/missing"), source("file:///nowhere/at/all")]
    result = command(tmp_path, "net", {"one.h5": [source(server.at("/good", send(BODY)))], "two.h5": bad})
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: two.h5: ")
    assert all(one.url in line for one in bad)
    assert "/good" not in line
    assert contents(tmp_path) == before
    assert [path.name for path in (tmp_path / "data" / "raw").iterdir()] == (["net"] if before else [])


def test_sample_is_drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset's own `source` wins, and its sources are not asked."""
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    mnist = values["datasets"]["mnist"] | {"source": "sample", "sample": {"train": 20, "test": 10}}
    values |= {
        "source": "published",
        "datasets": {"mnist": mnist},
        "weights": {},
        "features": {},
        "models": {},
        "gates": {},
    }
    YAML(typ="safe", pure=True).dump(values, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    download.download("mnist")
    assert set(contents(tmp_path)) == {f"mnist/{file}" for file in mnist["files"]}


def test_command_with_an_unknown_name(tmp_path: Path) -> None:
    """The message lists the names there are."""
    result = command(tmp_path, "nett", {"one.h5": [source("file:///nowhere")]})
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "'nett'" in line
    assert "did you mean 'net'" in line
    assert not (tmp_path / "data").exists()
