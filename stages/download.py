"""Archive files into data/raw/NAME: drawn here, or fetched from the sources of params.yaml and verified."""

import hashlib
import re
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from tqdm import tqdm

from stages import files, params
from stages.console import UserError

TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
BACKOFF = (1.0, 2.0, 4.0)  # seconds before each further attempt at one source
MAX_REDIRECTS = 5
CHUNK = 1 << 16  # bytes


class Unusable(Exception):
    """Why one source cannot give the file. The message never quotes a URL: it may hold a password."""


class Broken(Exception):
    """An attempt that failed in a way that may pass."""


def download(name: str) -> None:
    """Write data/raw/NAME with exactly the files of the entry, all or nothing.

    Raises:
        UserError: no dataset or weights of that name, or a file that no source gives.
    """
    config = params.load()
    entries: dict[str, params.Dataset | params.Weights] = {**config.datasets, **config.weights}
    entry = params.entry(entries, name, "datasets and weights")
    target = Path("data/raw") / name
    with files.replacing(target) as folder:
        folder.mkdir()
        if config.is_sample(entry):
            from stages import sample  # needs libraries that fetching does not

            sample.draw(name, entry, folder)
        else:
            for file_name, sources in entry.files.items():
                fetch(folder / file_name, sources)
    print(f"{target}: complete, {'drawn here' if config.is_sample(entry) else 'verified'}")


def fetch(path: Path, sources: list[params.Source]) -> None:
    """Write to `path` what the first good source gives: the first whose bytes have the hash beside its URL.

    Raises:
        UserError: one line with what was wrong with each source; `path` does not exist then.
    """
    faults = []
    for source in sources:
        # Flushed: in a log, this line is the only sign of a download that takes minutes.
        print(f"{path.name}: from {_shown(source.url)}", flush=True)
        algorithm, _, expected = source.hash.partition(":")
        try:
            with path.open("wb") as out:
                part = Part(out, algorithm)
                if source.url.startswith("file:"):
                    _copy(source.url, part)
                else:
                    _get(source.url, part)
            if part.digest.hexdigest() != expected:
                what = "an HTML page" if _looks_like_html(path) else "wrong hash"
                raise Unusable(f"{what}: {part.size} bytes with {algorithm}:{part.digest.hexdigest()}")
            return
        except Unusable as error:
            path.unlink()
            faults.append(f"{_shown(source.url)}: {error}")
            print(f"{path.name}: {error}", flush=True)
    raise UserError(f"{path.name}: no source gives it: {'; '.join(faults)}; correct its sources in params.yaml")


class Part:
    """A file that is hashed while it is written."""

    def __init__(self, out: BinaryIO, algorithm: str) -> None:
        """Empty `out`; `algorithm` is a name of hashlib."""
        self.out = out
        self.algorithm = algorithm
        self.restart()

    def restart(self) -> None:
        """Forget what came."""
        self.size = 0  # bytes
        self.digest = hashlib.new(self.algorithm, usedforsecurity=False)
        self.out.seek(0)
        self.out.truncate()

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self.out.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)


def _copy(url: str, part: Part) -> None:
    """Write the file of a file:// URL to `part`, or raise `Unusable`."""
    try:
        address = urlsplit(url)
        if address.netloc not in ("", "localhost"):
            raise Unusable("not on this machine; a local path has three slashes: file:///…")
        with Path(url2pathname(address.path)).open("rb") as file:
            while chunk := file.read(CHUNK):
                part.write(chunk)
    except ValueError as error:
        raise Unusable(f"not a path: {error}") from None
    except OSError as error:
        if error.filename is None:  # not about opening the source: no space left where `part` is
            raise
        raise Unusable(error.strerror) from None


def _get(url: str, part: Part) -> None:
    """Write the body of an http(s) URL to `part`, in several attempts if need be, or raise `Unusable`."""
    fault = ""
    with Session() as session:
        for pause in (0.0, *BACKOFF):
            time.sleep(pause)
            try:
                _attempt(session, url, part)
                return
            except Broken as error:
                fault = str(error)
                print(f"{_shown(url)}: {fault}", flush=True)
    raise Unusable(f"{fault} at the last of {1 + len(BACKOFF)} attempts")


def _attempt(session: requests.Session, url: str, part: Part) -> None:
    """Ask for what `part` lacks and write it.

    Raises:
        Broken: it may go better next time; `part` holds what came.
        Unusable: it will not.
    """
    with _respond(session, url, part.size) as response:
        status = response.status_code
        resumed = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if part.size and not resumed and status in (206, 416):
            part.restart()
            raise Broken("the server cannot resume")
        if status in (408, 429) or status >= 500:
            raise Broken(f"HTTP {status}")
        if status != 200 and not (part.size and resumed):
            raise Unusable(f"HTTP {status}")
        if not resumed:
            part.restart()
        length = response.headers.get("Content-Length", "")
        total = part.size + int(length) if length.isdecimal() else None
        with tqdm(total=total, initial=part.size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            try:
                # The bytes as sent: requests' own iterator would undo a Content-Encoding.
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    part.write(chunk)
                    bar.update(len(chunk))
            except urllib3.exceptions.HTTPError as error:
                raise Broken(f"broken off after {part.size} bytes ({_reason(error)})") from None


def _respond(session: requests.Session, url: str, offset: int) -> requests.Response:
    """The response to a GET from byte `offset` on, its body not yet read; or `Broken`, or `Unusable`."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        return session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise Broken(f"no connection ({_reason(error)})") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise Unusable(_reason(error)) from None


class Session(requests.Session):
    """Follows redirects to http and https, a few, and never from https to http."""

    def __init__(self) -> None:
        """Bound the number of redirects."""
        super().__init__()
        self.max_redirects = MAX_REDIRECTS

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where `resp` redirects to, None if it does not; `Unusable` if we do not follow."""
        target = super().get_redirect_target(resp)
        if target is not None:
            scheme = urlsplit(urljoin(resp.url, target)).scheme
            if scheme != "https" and (scheme != "http" or urlsplit(resp.url).scheme != "http"):
                raise Unusable(f"a redirect to {scheme}, which is not followed")
        return target


def _reason(error: BaseException) -> str:
    """The system's words for a failed connection, else the exception's name: messages of requests quote the URL."""
    words = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException) and cause.strerror:
            words = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return words


def _shown(url: str) -> str:
    """The URL without what may be secret: user, password and query."""
    return re.sub(r"[?#].*", "", re.sub(r"(?<=://)[^/?#]*@", "", url))


def _looks_like_html(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))


if __name__ == "__main__":
    from stages.console import run

    run(download, "name")
