"""Fetch a published file from the first mirror that delivers it with the right hash: retry, and resume."""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from stages.runtime import dvc_lock, paths
from stages.runtime.errors import UserError, mask_urls
from stages.runtime.files import file_hash
from stages.runtime.progress import progress

if TYPE_CHECKING:
    from stages.config.datasets import MirrorConfig

TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
BACKOFF = (0.0, 1.0, 2.0, 4.0)  # seconds before each attempt at one mirror
CHUNK = 1 << 16  # bytes


class MirrorError(Exception):
    """Why a mirror cannot deliver a file. The message never quotes a URL, which may contain a password."""


def fetch(path: Path, mirrors: "list[MirrorConfig]", folder: Path) -> None:
    """Write to `path` the file of the first mirror whose bytes have the hash beside its URL.

    Args:
        path: a file that does not exist.
        mirrors: in the order in which they are tried.
        folder: where the file will lie; dvc.lock may record the hash of an earlier one there.

    Raises:
        UserError: all mirrors failed: one line with the error of each, which ends with an entry for a copy of the file.
            `path` does not exist then.
    """
    errors: list[str] = []
    for number, mirror in enumerate(mirrors):
        if errors:
            print(f"{path.name}: {errors[-1]}", flush=True)
        url = mask_urls(mirror.url)
        print(f"{path.name}: from {url}", flush=True)
        algorithm, _, expected = mirror.hash.partition(":")
        # What an interrupted download has left is continued: the hash will show whether it belongs to this file.
        part = paths.DOWNLOADS / f"{folder.name}-{expected}-{number}" if expected else path
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("ab") as out:
                (_copy if mirror.url.startswith("file:") else _download)(mirror.url, out)
            if not expected:
                _pin(path, folder)
                return
            if (found := file_hash(part, algorithm)) == expected:
                shutil.move(part, path)
                for other in paths.DOWNLOADS.glob(f"{folder.name}-{expected}-*"):
                    other.unlink()
                return
            what = "an HTML page" if _looks_like_html(part) else "wrong hash"
            size = part.stat().st_size
            part.unlink()
            raise MirrorError(f"{what}: {size} bytes with {algorithm}:{found}")
        except MirrorError as error:
            path.unlink(missing_ok=True)
            errors.append(f"{url}: {error}")
    copy = Path(os.path.expanduser("~")).absolute() / "Downloads" / path.name
    entry = f"- {copy.as_uri()}#{mirrors[0].hash.replace(':', '=') or 'sha256=…'}"
    raise UserError(
        f"{path.name}: all mirrors failed: {'; '.join(errors)}; correct them in params.yaml, or name a copy of the "
        f"file there: {entry}"
    )


def _pin(path: Path, folder: Path) -> None:
    """Accept a file whose publisher names no hash, unless dvc.lock records another for the only file in `folder`."""
    listing = json.dumps([{"md5": file_hash(path, "md5"), "relpath": path.name}])  # as DVC writes that of a folder
    digest = hashlib.md5(listing.encode()).hexdigest()
    if dvc_lock.output_hashes().get(folder.as_posix()) not in (None, f"{digest}.dir"):
        raise MirrorError("it is not the file of the first download, whose hash is in dvc.lock")
    found = file_hash(path, "sha256")
    print(f"{path.name}: its publisher names no hash; dvc.lock pins this file: sha256:{found}", flush=True)


def _copy(url: str, out: BinaryIO) -> None:
    """Write the file of a file:// URL to `out`."""
    try:
        address = urlsplit(url)
        if address.netloc not in ("", "localhost"):
            raise MirrorError("not on this machine; a local path has three slashes: file:///…")
        out.truncate(0)
        with Path(url2pathname(address.path)).open("rb") as source:
            shutil.copyfileobj(source, out)
    except ValueError as error:
        raise MirrorError(str(error)) from None
    except OSError as error:
        if error.filename is None:  # not from opening the source: the disk of `out` is full
            raise
        raise MirrorError(error.strerror) from None


def _download(url: str, out: BinaryIO) -> None:
    """Write the body of an http(s) URL to `out`, in several attempts if necessary."""
    failure = ""
    for number, pause in enumerate(BACKOFF, 1):
        time.sleep(pause)
        if not (failure := _attempt(url, out)):
            return
        if number < len(BACKOFF):
            print(f"{mask_urls(url)}: {failure}; trying again", flush=True)
    raise MirrorError(f"{failure} in the last of {len(BACKOFF)} attempts")


def _attempt(url: str, out: BinaryIO) -> str:
    """Request the bytes that `out` lacks and append them; return why not all came, if another attempt may succeed."""
    size = out.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if url.startswith("https:") and not all(r.url.startswith("https:") for r in (*response.history, response)):
                raise MirrorError("it redirects to http, which is not allowed")
            status = response.status_code
            resumed = size > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
            if status in (408, 429) or status >= 500:
                return f"HTTP {status}"
            if not (status == 206 and resumed):
                out.seek(0)
                out.truncate()
                if size and status in (206, 416):
                    return "the server cannot resume"
                if status != 200:
                    raise MirrorError(f"HTTP {status}")
            length = response.headers.get("Content-Length", "")
            total = out.tell() + int(length) if length.isdecimal() else None
            # The bytes as they were sent: requests' own iterator would undo a Content-Encoding.
            chunks = response.raw.stream(CHUNK, decode_content=False)
            name = urlsplit(url).path.rpartition("/")[2]
            for chunk in progress(chunks, total, name, "B", size=len, initial=out.tell()):
                out.write(chunk)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        if out.tell() == 0 and any(isinstance(cause, socket.gaierror) for cause in _causes(error)):
            raise MirrorError(f"there is no network, or no server of this name ({_reason(error)})") from None
        return f"connection lost after {out.tell()} bytes ({_reason(error)})"
    except (requests.RequestException, ValueError) as error:
        raise MirrorError(_reason(error)) from None
    return ""


def _reason(error: BaseException) -> str:
    """The system's message for a failed connection, else the exception's name: messages of requests quote the URL."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException) and cause.strerror:
            return cause.strerror
    return type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _looks_like_html(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))
