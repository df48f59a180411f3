"""Run the application: a socket, uvicorn with bounded connections, and a line a request."""

import asyncio
import logging
import signal
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from stages.inference.limits import Limits
from stages.runtime.errors import UserError

BACKLOG = 256  # connections that the system accepts before the server does
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")]


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address, before a model is loaded: clients wait, and an address in use is known at once.

    Args:
        host: the address of an interface.
        port: 0 for any.

    Raises:
        UserError: the address is in use or not this machine's.
    """
    # asyncio sets TCP_NODELAY only if the protocol is named; without it, Linux holds each answer back for 40 ms
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, proto=socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port}: {reason}; choose another --host or --port") from None
    return bound


def run(app: FastAPI, limits: Limits, bound: socket.socket, log: Path | None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have arrived are answered.

    Args:
        app: the application, from `create_app`.
        limits: bounds of connections.
        bound: the socket, from `bind`.
        log: file for a line a request; None for standard error.

    Raises:
        OSError: the log cannot be written.
    """
    stream = None if log is None else log.open("a", encoding="utf-8")  # of logging's own errors, none names the file
    logging.basicConfig(stream=stream, format="%(asctime)s %(message)s", level=logging.WARNING, force=True)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every invalid form
    config = uvicorn.Config(
        app,
        http=_protocol(limits),
        ws="none",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        headers=HEADERS,
        backlog=BACKLOG,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=int(limits.receive_seconds + limits.answer_seconds) + 1,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again after a graceful end
    _Server(config).run([bound])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(f"http://{address} answers; Ctrl-C ends it", flush=True)


def _protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP/1.1 protocol with two bounds that uvicorn does not have.

    A connection is closed if it has got no answer in the time that a request may take; uvicorn alone waits for ever for
    the end of the headers. And a connection too many closes the one that has waited longest for its client, so that
    thousands of idle or slow ones displace each other and not those that are answered.
    """
    seconds = limits.idle_seconds + 2 * limits.receive_seconds + limits.answer_seconds  # receive twice: also to send

    class BoundedProtocol(H11Protocol):
        since = 0.0  # time of the loop at which it was made, or last answered
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.restart()
            if len(self.connections) > limits.max_connections:
                others: set[Any] = self.connections - {self}
                min(filter(waits_for_client, others), key=lambda other: other.since, default=self).abort()

        def on_response_complete(self) -> None:
            self.restart()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            if self.deadline:
                self.deadline.cancel()
            super().connection_lost(exc)

        def restart(self) -> None:
            if self.deadline:
                self.deadline.cancel()
            self.since, self.deadline = self.loop.time(), self.loop.call_later(seconds, self.abort)

        def abort(self) -> None:
            self.connections.discard(self)  # at once: several may be made before this one's loss is noticed
            self.transport.abort()

    def waits_for_client(connection: BoundedProtocol) -> bool:
        """Whether a connection is idle, or a request has not been received completely."""
        return connection.cycle is None or connection.cycle.response_complete or connection.cycle.more_body

    return BoundedProtocol
