"""Fetching from mirrors, against a server on this machine that behaves like real ones."""

import gzip
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.config.datasets import MirrorConfig
from stages.data.real import fetch as published
from stages.data.real.fetch import fetch
from stages.runtime import paths
from stages.runtime.errors import UserError
from tests.data.mirror_server import BODY, CUT, PAGE, Reply, Server, mirror, send, send_range, send_range_or_all, serve


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _clone_without_backoff(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("clone"))  # which gets what of a download is unfinished
    monkeypatch.setattr(published, "BACKOFF", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses: bound, so that nobody else gets it, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def fetched(folder: Path, *mirrors: MirrorConfig) -> bytes:
    """Fetch from the mirrors; return the content of the file."""
    fetch(folder / "file.gz", list(mirrors), Path("data/raw/net"))
    return (folder / "file.gz").read_bytes()


def refused(folder: Path, *mirrors: MirrorConfig) -> str:
    """Fetch from mirrors that all fail; return the error message."""
    with pytest.raises(UserError) as error:
        fetch(folder / "file.gz", list(mirrors), Path("data/raw/net"))
    assert not list(folder.iterdir())
    assert "\n" not in str(error.value)
    return str(error.value)


def refused_after(folder: Path, *mirrors: MirrorConfig) -> str:
    """The same in a folder that contains the file of an earlier mirror."""
    (folder / "file.gz").unlink()
    return refused(folder, *mirrors)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_fetch_checks_the_hash(server: Server, tmp_path: Path, algorithm: str) -> None:
    assert fetched(tmp_path, mirror(server.at("/a", send(BODY)), algorithm=algorithm)) == BODY
    url = server.at("/a", send(BODY[:-1]))
    assert "wrong hash" in refused_after(tmp_path, mirror(url, algorithm=algorithm))


def test_file_url_is_copied_and_verified(tmp_path: Path) -> None:
    there = tmp_path / "with space" / "b"
    there.parent.mkdir()
    there.write_bytes(BODY)
    assert fetched(tmp_path, mirror(there.as_uri())) == BODY
    there.write_bytes(BODY[1:])
    with pytest.raises(UserError, match="wrong hash"):
        fetched(tmp_path, mirror(there.as_uri()))


@pytest.mark.parametrize(
    ("url", "why"),
    [("file://data/file.gz", "three slashes"), ("file:///tmp", "Is a directory"), ("file:///a%00b", "null byte")],
)
def test_file_url_without_a_file_is_a_failed_mirror(tmp_path: Path, url: str, why: str) -> None:
    assert why in refused(tmp_path, mirror(url))


def test_lost_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    """The bytes that arrived before are kept and hashed."""
    url = server.at("/a", send(BODY, cut=CUT), send_range(BODY))
    assert fetched(tmp_path, mirror(url)) == BODY
    first, second = server.ranges()
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= CUT


def test_next_run_continues_what_an_interrupted_one_has_left(server: Server, tmp_path: Path) -> None:
    url = server.at("/a", *[send(BODY, cut=CUT), *[send(b"", 503)] * 3], send_range(BODY))
    assert "HTTP 503" in refused(tmp_path, mirror(url))
    (part,) = paths.DOWNLOADS.iterdir()
    size = part.stat().st_size
    assert 0 < size <= CUT
    assert fetched(tmp_path, mirror(url)) == BODY
    assert server.ranges()[-1] == f"bytes={size}-"
    assert not list(paths.DOWNLOADS.iterdir())


@pytest.mark.parametrize("body", [BODY, BODY[:9]])  # the file may have been replaced by a shorter one meanwhile
def test_server_that_ignores_range_is_read_from_the_start(server: Server, tmp_path: Path, body: bytes) -> None:
    """A 200 after a Range is the whole file, not its rest."""
    url = server.at("/a", send(BODY, cut=CUT), send(body))
    assert fetched(tmp_path, mirror(url, body)) == body
    assert server.ranges()[1] is not None


@pytest.mark.parametrize(
    "answer", [send(BODY[7:], 206, Content_Range=f"bytes 7-{len(BODY) - 1}/{len(BODY)}"), send(b"", 416)]
)
def test_other_range_is_read_again_from_the_start(server: Server, tmp_path: Path, answer: Reply) -> None:
    """A 206 for another byte, or a 416, cannot be appended."""
    url = server.at("/a", send(BODY, cut=CUT), answer, send(BODY))
    assert fetched(tmp_path, mirror(url)) == BODY
    assert [asked is None for asked in server.ranges()] == [True, False, True]


def reset(body: bytes, after: int) -> Reply:
    """Send so many bytes of the body, then reset the connection instead of closing it."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        send(body, cut=after)(handler)
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return reply


def test_reset_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    """Bytes from before the reset may be lost, but none arrives twice."""
    url = server.at("/a", reset(BODY, CUT), send_range_or_all(BODY))
    assert fetched(tmp_path, mirror(url)) == BODY
    server.at("/a", reset(BODY, CUT))
    assert "connection lost" in refused_after(tmp_path, mirror(url))


def test_stalled_server_times_out(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its reply, and in the middle of it."""
    monkeypatch.setattr(published, "TIMEOUT", (0.3, 0.3))
    monkeypatch.setattr(published, "BACKOFF", (0.0, 0.0))
    asleep = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        asleep.wait(30)

    def stalled(handler: BaseHTTPRequestHandler) -> None:
        send(BODY, cut=CUT)(handler)
        handler.wfile.flush()
        asleep.wait(30)

    started = time.monotonic()
    try:
        bad = [mirror(server.at("/silent", silent)), mirror(server.at("/stalled", stalled))]
        assert fetched(tmp_path, *bad, mirror(server.at("/good", send(BODY)))) == BODY
        message = refused_after(tmp_path, *bad)
    finally:
        asleep.set()
    assert "connection lost after 0 bytes (ReadTimeout)" in message
    assert message.count("connection lost after") == 2
    assert time.monotonic() - started < 10


def test_slow_server_does_not_time_out(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout limits the time without a byte, not the total."""
    monkeypatch.setattr(published, "TIMEOUT", (0.5, 0.5))

    def slow(handler: BaseHTTPRequestHandler) -> None:
        send(BODY, cut=0)(handler)
        for start in range(0, len(BODY), 40_000):
            handler.wfile.write(BODY[start : start + 40_000])
            handler.wfile.flush()
            time.sleep(0.1)

    started = time.monotonic()
    assert fetched(tmp_path, mirror(server.at("/a", slow))) == BODY
    assert time.monotonic() - started > 0.5
    assert len(server.requests) == 1


def test_connection_that_is_always_lost_fails_after_a_few_attempts(server: Server, tmp_path: Path) -> None:
    assert "connection lost" in refused(tmp_path, mirror(server.at("/a", send(BODY, cut=CUT))))
    assert len(server.requests) == len(published.BACKOFF)


def test_temporary_status_is_retried(server: Server, tmp_path: Path) -> None:
    url = server.at("/a", send(b"", 500), send(b"", 503), send(b"", 429), send(BODY))
    assert fetched(tmp_path, mirror(url)) == BODY


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (send(BODY[::-1]), "wrong hash"),
        (send(BODY[:-1]), "wrong hash"),
        (send(BODY + b"more"), "wrong hash"),
        (send(BODY, length=len(BODY) - 1), "wrong hash"),
        (send(BODY, length=len(BODY) + 1), "connection lost"),
        (send(gzip.compress(BODY), Content_Encoding="gzip"), "wrong hash"),  # by a proxy
        (send(PAGE, Content_Type="text/html"), "an HTML page"),
        (send(b"gone", 404), "HTTP 404"),
        (send(b"", 403), "HTTP 403"),
        (send(b"", 500), "HTTP 500"),
        (send(BODY, 206), "HTTP 206"),
        (send(b"", 302, Location="file:///etc/hostname"), "InvalidSchema"),
        (send(b"", 302, Location="ftp://127.0.0.1/a"), "InvalidSchema"),
        (send(b"", 302, Location="/bad"), "TooManyRedirects"),
        (send(b"", 302, Location="http://[bad"), "ValueError"),
    ],
)
def test_next_mirror_replaces_a_failed_one(server: Server, tmp_path: Path, bad: Reply, why: str) -> None:
    """Without a next mirror, the error names the failed one and the reason."""
    first = mirror(server.at("/bad", bad))
    assert fetched(tmp_path, first, mirror(server.at("/good", send(BODY)))) == BODY
    message = refused_after(tmp_path, first)
    assert why in message
    assert "file.gz" in message
    assert first.url in message


def test_next_mirror_replaces_an_unreachable_one(server: Server, tmp_path: Path, closed_port: int) -> None:
    bad = [mirror((tmp_path / "missing").as_uri()), mirror(f"http://127.0.0.1:{closed_port}/a")]
    assert fetched(tmp_path, *bad, mirror(server.at("/good", send(BODY)))) == BODY
    message = refused_after(tmp_path, *bad)
    assert "No such file or directory" in message
    assert "Connection refused" in message


def test_few_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    url = server.at("/a", send(b"", 301, Location=server.at("/b", send(b"", 307, Location="/c"))))
    server.at("/c", send(BODY))
    assert fetched(tmp_path, mirror(url)) == BODY


def certificate(folder: Path) -> Path:
    """Create a self-signed certificate for this machine, with its key."""
    file = folder / "certificate.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", *kind, *name, "-keyout", str(file), "-out", str(folder / "public.pem")],
        check=True,
        capture_output=True,
    )
    file.write_text(
        file.read_text(encoding="utf-8") + (folder / "public.pem").read_text(encoding="utf-8"), encoding="utf-8"
    )
    return file


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_verified(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrusted server fails; a trusted one does not, but must not redirect to http."""
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
            """The client closes the connection, as the test expects."""

    files = tmp_path / "files"
    files.mkdir()
    with Quiet(("127.0.0.1", 0), Handler) as https:
        https.socket = context.wrap_socket(https.socket, server_side=True)
        thread = threading.Thread(target=https.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"https://127.0.0.1:{https.server_port}"
            assert "certificate verify failed" in refused(files, mirror(url + "/a"))
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "public.pem"))
            assert fetched(files, mirror(url + "/a")) == BODY
            assert "redirects to http, which is not allowed" in refused_after(files, mirror(url + "/away"))
        finally:
            https.shutdown()
            thread.join()


def test_content_encoding_is_not_decoded(server: Server, tmp_path: Path) -> None:
    """The hash is that of the archive as sent."""
    body = gzip.compress(BODY)
    url = server.at("/a", send(body, Content_Encoding="gzip"))
    assert fetched(tmp_path, mirror(url, body)) == body
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_secrets_are_not_printed(
    server: Server, tmp_path: Path, closed_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are sent, but no message contains them, whatever fails."""
    secret = "user:hunter2@127.0.0.1:{}{}?token=hunter2"
    port = int(server.url.rpartition(":")[2])
    server.at("/broken", send(BODY, cut=CUT))
    server.at("/redirect", send(b"", 302, Location=f"http://user:hunter2@127.0.0.1:{closed_port}/?hunter2"))
    mirrors = [
        *(mirror("http://" + secret.format(port, path)) for path in ("/a", "/broken", "/redirect")),
        mirror("http://" + secret.format(closed_port, "/b")),
        mirror("http://" + secret.format("x", "/c")),  # not a port
    ]
    message = refused(tmp_path, *mirrors)
    printed = capfd.readouterr()
    assert f"http://127.0.0.1:{port}/a: HTTP 404" in message
    assert f"http://127.0.0.1:{closed_port}/b: " in message
    assert "hunter2" not in message + printed.out + printed.err
    assert server.requests[0][0] == "/a?token=hunter2"
    assert "Authorization" in server.requests[0][1]
