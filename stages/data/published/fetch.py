"""Fetch a published file from the first mirror that delivers it with the right hash."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stages.data.published import http
from stages.data.published.partial import MirrorError, PartialFile
from stages.runtime.errors import UserError, mask_urls

if TYPE_CHECKING:
    from stages.config.datasets import MirrorConfig

CHUNK = 1 << 16  # bytes


def fetch(path: Path, mirrors: "list[MirrorConfig]") -> None:
    """Write to `path` the file of the first mirror whose bytes have the hash beside its URL.

    Raises:
        UserError: all mirrors failed: one line with the error of each. `path` does not exist then.
    """
    errors = []
    for mirror in mirrors:
        url = mask_urls(mirror.url)
        # Flushed, because a download may take minutes.
        print(f"{path.name}: from {url}", flush=True)
        algorithm, _, expected = mirror.hash.partition(":")
        try:
            with path.open("wb") as out:
                file = PartialFile(out, algorithm)
                if mirror.url.startswith("file:"):
                    _copy(mirror.url, file)
                else:
                    http.get(mirror.url, file)
            if (found := file.digest.hexdigest()) != expected:
                what = "an HTML page" if _looks_like_html(path) else "wrong hash"
                raise MirrorError(f"{what}: {file.size} bytes with {algorithm}:{found}")
            return
        except MirrorError as error:
            path.unlink()
            errors.append(f"{url}: {error}")
            print(f"{path.name}: {error}", flush=True)
    raise UserError(f"{path.name}: all mirrors failed: {'; '.join(errors)}; correct them in params.yaml")


def _copy(url: str, file: PartialFile) -> None:
    """Write the file of a file:// URL to `file`, or raise a `MirrorError`."""
    try:
        address = urlsplit(url)
        if address.netloc not in ("", "localhost"):
            raise MirrorError("not on this machine; a local path has three slashes: file:///…")
        with Path(url2pathname(address.path)).open("rb") as source:
            while chunk := source.read(CHUNK):
                file.write(chunk)
    except ValueError as error:
        raise MirrorError(f"not a path: {error}") from None
    except OSError as error:
        if error.filename is None:  # not from opening the source: the disk of `file` is full
            raise
        raise MirrorError(error.strerror) from None


def _looks_like_html(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))
