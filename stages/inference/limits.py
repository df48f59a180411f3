"""What the server accepts of its clients; each limit is a keyword, and an option of tools/use/serve.py."""

from dataclasses import dataclass, field
from typing import Any

from stages.data.jpeg import MAX_PIXELS


def _limit(default: float, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server, and how it gathers batches. The field's metadata has the meaning of each."""

    max_bytes: int = _limit(10_000_000, "bytes of a request")
    max_pixels: int = _limit(MAX_PIXELS, "pixels of an image")
    max_images: int = _limit(32, "images of a request")
    max_memory: int = _limit(256_000_000, "bytes of all requests that are held at the same time")
    max_connections: int = _limit(256, "connections; a further one closes the longest idle or slowest one")
    receive_seconds: float = _limit(10.0, "seconds until a request has been received")
    answer_seconds: float = _limit(30.0, "seconds from then until it has been answered")
    idle_seconds: int = _limit(5, "seconds that a connection may wait for its next request")
    batch_images: int = _limit(32, "images that are predicted at once")
    batch_seconds: float = _limit(0.002, "seconds that an image waits for others")
    decode_threads: int = _limit(2, "threads that decode images")
