"""HTTP connections of which there are never more than a limit, and none lasts without being of use."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stages.inference.limits import Limits


def make_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP/1.1 protocol with two bounds that uvicorn does not have.

    A connection that is new, or on which data for a request arrives, is closed after the time that receiving and
    answering may take; uvicorn alone waits for ever for the end of the headers. And a connection too many closes the
    one that has waited longest for its client: a client that opens thousands of connections closes its own.
    """
    seconds = 2 * limits.receive_seconds + limits.answer_seconds  # once for receiving, once for sending the answer

    class BoundedProtocol(H11Protocol):
        deadline: asyncio.TimerHandle | None = None
        since = 0.0  # time of the loop at which it last changed between idle and in use

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.restart()
            if len(self.connections) > limits.max_connections:
                others: set[Any] = self.connections - {self}
                waiting = [other for other in others if other.waits_for_client()]
                close(min(waiting, key=lambda other: other.since, default=self))

        def data_received(self, data: bytes) -> None:
            if self.deadline is None:
                self.restart()
            super().data_received(data)

        def on_response_complete(self) -> None:
            self.stop()
            super().on_response_complete()  # begins with the next request, if it is there already
            # An error may be answered before the whole request is there: uvicorn discards the rest of it.
            if self.conn.their_state is not h11.IDLE:
                self.restart()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop()
            super().connection_lost(exc)

        def waits_for_client(self) -> bool:
            """Whether it is idle, or a request has not been received completely."""
            return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

        def restart(self) -> None:
            self.stop()
            self.deadline = self.loop.call_later(seconds, close, self)

        def stop(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
            self.deadline, self.since = None, self.loop.time()

    def close(connection: BoundedProtocol) -> None:
        connection.connections.discard(connection)  # at once: several may be made before this one's loss is noticed
        connection.transport.abort()

    return BoundedProtocol
