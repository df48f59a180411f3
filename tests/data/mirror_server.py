"""A scripted HTTP server for tests, on 127.0.0.1."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stages.config.datasets import MirrorConfig
from stages.data.real.fetch import CHUNK

BODY = random.Random(0).randbytes(5 * CHUNK + 17)
CUT = 3 * CHUNK + 5  # where a connection breaks
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """The replies of each path, one per request, the last one forever; and the requests so far."""

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def at(self, path: str, *replies: Reply) -> str:
        """Set the replies of `path`; return its URL."""
        self.replies[path] = list(replies)
        return self.url + path

    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [headers.get("Range") for _, headers in self.requests]


def send(body: bytes, status: int = 200, cut: int | None = None, length: int | None = None, **headers: str) -> Reply:
    """Send the whole body, or `cut` bytes before the connection closes, with a true or a false `length`."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body[:cut])

    return reply


def send_range(body: bytes) -> Reply:
    """Send the body from the requested byte on."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        send(body[start:], 206, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")(handler)

    return reply


def send_range_or_all(body: bytes) -> Reply:
    """Send the requested range, as most servers do."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        (send_range if "Range" in handler.headers else send)(body)(handler)

    return reply


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server without replies: 404 for everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            scripted.requests.append((self.path, dict(self.headers)))
            replies = scripted.replies.get(path, [send(b"no such page", 404)])
            (replies.pop(0) if len(replies) > 1 else replies[0])(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        scripted = Server(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield scripted
        server.shutdown()
        thread.join()


def mirror(url: str, body: bytes = BODY, algorithm: str = "sha256") -> MirrorConfig:
    """The URL with the hash of `body`."""
    return MirrorConfig(url=url, hash=f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")
