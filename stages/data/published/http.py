"""Download over http and https: retry, resume, and follow few redirects."""

import time
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from stages.data.published.partial import MirrorError, PartialFile
from stages.runtime.errors import mask_urls
from stages.runtime.progress import progress

TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
BACKOFF = (1.0, 2.0, 4.0)  # seconds before each further attempt at one mirror
MAX_REDIRECTS = 5
CHUNK = 1 << 16  # bytes


class TransientError(Exception):
    """A failed attempt; the next one may succeed."""


class Session(requests.Session):
    """Follows a few redirects, to http and https only, and never from https to http."""

    def __init__(self) -> None:
        super().__init__()
        self.max_redirects = MAX_REDIRECTS

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """The URL that `resp` redirects to, or None; a `MirrorError` if it must not be followed."""
        target = super().get_redirect_target(resp)
        if target is not None:
            scheme = urlsplit(urljoin(resp.url, target)).scheme
            if scheme != "https" and (scheme != "http" or urlsplit(resp.url).scheme != "http"):
                raise MirrorError(f"it redirects to {scheme}, which is not allowed")
        return target


def get(url: str, file: PartialFile) -> None:
    """Write the body of an http(s) URL to `file`, in several attempts if necessary.

    Raises:
        MirrorError: no attempt succeeded, or another one would be in vain.
    """
    message = ""
    with Session() as session:
        for pause in (0.0, *BACKOFF):
            time.sleep(pause)
            try:
                _attempt(session, url, file)
                return
            except TransientError as error:
                message = str(error)
                print(f"{mask_urls(url)}: {message}", flush=True)
    raise MirrorError(f"{message} in the last of {1 + len(BACKOFF)} attempts")


def _attempt(session: requests.Session, url: str, file: PartialFile) -> None:
    """Request the bytes that `file` lacks and append them.

    Raises:
        TransientError: try again; `file` keeps what has arrived.
        MirrorError: do not.
    """
    with _respond(session, url, file.size) as response:
        status = response.status_code
        resumed = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {file.size}-")
        if file.size and not resumed and status in (206, 416):
            file.restart()
            raise TransientError("the server cannot resume")
        if status in (408, 429) or status >= 500:
            raise TransientError(f"HTTP {status}")
        if status != 200 and not (file.size and resumed):
            raise MirrorError(f"HTTP {status}")
        if not resumed:
            file.restart()
        length = response.headers.get("Content-Length", "")
        total = file.size + int(length) if length.isdecimal() else None
        # The bytes as they were sent: requests' own iterator would undo a Content-Encoding.
        chunks = response.raw.stream(CHUNK, decode_content=False)
        name = urlsplit(url).path.rpartition("/")[2]
        try:
            for chunk in progress(chunks, total, name, "B", size=len, initial=file.size):
                file.write(chunk)
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(f"connection lost after {file.size} bytes ({_reason(error)})") from None


def _respond(session: requests.Session, url: str, offset: int) -> requests.Response:
    """Send a GET request for the bytes from `offset` on; the body of the response is not read yet."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        return session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TransientError(f"no connection ({_reason(error)})") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise MirrorError(_reason(error)) from None


def _reason(error: BaseException) -> str:
    """The system's message for a failed connection, else the exception's name: messages of requests quote the URL."""
    words = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException) and cause.strerror:
            words = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return words
