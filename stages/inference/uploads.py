"""Images that a client sends: as the body of a request, or as files of a form."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from stages.data.convert import open_image
from stages.inference.limits import Limits

BUSY = {"Retry-After": "1"}
BINARY, FORM = "application/octet-stream", "multipart/form-data"
START_OF_SCAN = b"\xff\xda"
SCANS = 16  # most scans of an image with the most pixels; a smaller one may have more


class Upload(NamedTuple):
    """An image file, and its name if the client told one."""

    name: str | None
    data: bytes


class Receiver:
    """Receives the requests of a server, and counts the bytes of those that it holds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Receive the images of a request, which are held until the block ends.

        Raises:
            HTTPException: 400 not a valid form, or no image in it; 408 too slow; 413 too large; 415 a wrong type;
                503 too much is held already.
        """
        own, limit, seconds = 0, self._limits.max_bytes, self._limits.receive_seconds

        async def bounded() -> Message:
            nonlocal own
            message = await request.receive()
            size = len(message.get("body", b""))
            own, self._held = own + size, self._held + size
            if own > limit:
                raise HTTPException(413, f"the request has more than {limit:,} bytes")
            if self._held > self._limits.max_memory:
                raise HTTPException(503, "the server is busy", BUSY)
            return message

        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise HTTPException(413, f"the request has {int(length):,} bytes, more than {limit:,}")
        try:
            try:
                uploads = await asyncio.wait_for(_read(Request(request.scope, bounded), self._limits), seconds)
            except asyncio.TimeoutError:
                message = f"the request did not arrive in {seconds:g} seconds"
                raise HTTPException(408, message, {"Connection": "close"}) from None
            yield uploads
        finally:
            self._held -= own


async def _read(request: Request, limits: Limits) -> list[Upload]:
    kind = request.headers.get("content-type", BINARY).partition(";")[0].strip().lower()
    if kind == FORM:
        async with request.form(max_files=limits.max_images, max_fields=limits.max_images) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            uploads = [Upload(file.filename, await file.read()) for file in files]
        if not uploads:
            raise HTTPException(400, "the form has no file")
        return uploads
    if kind != BINARY and not kind.startswith("image/"):
        raise HTTPException(415, f"{kind[:100]!r} is not a type of an image: send image/*, {BINARY} or {FORM}")
    return [Upload(None, await request.body())]


def check_scans(data: bytes, limit: int) -> None:
    """Check how many scans a progressive JPEG file has: each goes over all pixels, and usual are ten.

    Args:
        data: a file of any kind.
        limit: most pixels of an image; it may have as many in all scans as `SCANS` of this size.

    Raises:
        ValueError: it has too many; the message continues "the file …".
    """
    try:
        image = open_image(data, limit)
    except Exception:  # whoever decodes it says what is wrong
        return
    (width, height), scans = image.size, data.count(START_OF_SCAN) if image.format == "JPEG" else 1
    if width * height * scans > SCANS * limit >= SCANS * width * height:
        raise ValueError(f"has {width:,} x {height:,} pixels in {scans:,} scans, more than are decoded")
