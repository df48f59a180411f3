"""A model that answers over HTTP: the application, and the server that runs it."""

import base64
import hashlib
import re
import signal
import socket
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from stages.inference.answers import BODY, Answer, Error, Health
from stages.inference.connections import make_protocol
from stages.inference.limits import Limits
from stages.inference.predictor import Predictor
from stages.inference.service import Service
from stages.inference.uploads import Receiver
from stages.runtime.errors import UserError

BACKLOG = 256  # connections that the system accepts before the server does


def create_app(name: str, model: Predictor, limits: Limits) -> FastAPI:
    """The application: /predict, /health, /openapi.json, and two pages that need no other host.

    Args:
        name: of the model, for answers.
        model: that answers.
        limits: on requests. Those on connections are `run`'s.
    """
    service, receiver = Service(name, model, limits), Receiver(limits)
    app = FastAPI(
        title=name,
        description="Classifies images.",
        version="1",
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        lifespan=service.running,
    )
    errors: dict[int | str, dict[str, Any]] = {status: {"model": Error} for status in (400, 408, 413, 415, 422, 503)}

    @app.post("/predict", responses=errors, openapi_extra=BODY, response_model_exclude_none=True)
    async def predict(
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000, description="classes to return, the most probable first")] = 3,
        explain: Annotated[bool, Query(description="also return what speaks for the first class, as an image")] = False,
    ) -> Answer:
        """Classify one image, or those in a form. An invalid image among valid ones has an error of its own."""
        async with receiver.receive(request) as uploads:
            return Answer(model=name, images=await service.answer(uploads, k, explain))

    @app.get("/health")
    async def health() -> Health:
        """Whether the server answers."""
        return Health(
            status="ok",
            model=name,
            classes=service.classes,
            in_flight=service.in_flight,
            max_bytes=limits.max_bytes,
        )

    for path, file in (("/", "page.html"), ("/docs", "docs.html")):
        page = resources.files("stages.inference").joinpath(file).read_text(encoding="utf-8")
        app.add_api_route(path, _page(page), include_in_schema=False)

    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _http_error)
    app.add_exception_handler(Exception, _http_error)
    return app


def _page(text: str) -> Any:
    """A route for a page that may run its own script and style, and load nothing from another host."""
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
            for content in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    return page


async def _http_error(request: Request, error: Exception) -> Response:
    """Every error as one line of JSON."""
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the client closed the connection"}, 400)
    if isinstance(error, StarletteHTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": "an error of the server, which its log describes"}, 500)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)


def bind(host: str, port: int) -> socket.socket:
    """A socket with an address, on which `run` will listen; to be called before a model is loaded.

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
    except (OSError, OverflowError) as error:
        bound.close()
        raise _unusable(host, port, error) from None
    return bound


def _unusable(host: str, port: int, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{host}:{port}: {reason}; choose another --host or --port")


def run(app: FastAPI, limits: Limits, bound: socket.socket, log: Path | None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have arrived are answered.

    Args:
        app: from `create_app`.
        limits: on connections.
        bound: from `bind`.
        log: the file for a line a request; None for standard error.

    Raises:
        OSError: the file cannot be written; it names it.
        UserError: another server has begun to listen on the address since `bind`.
    """
    if log is not None:
        log.open("ab").close()  # logging raises an error that does not name the file
    config = uvicorn.Config(
        app,
        http=make_protocol(limits),
        ws="none",
        log_config=_log_config(log),
        proxy_headers=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")],
        backlog=BACKLOG,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=int(limits.receive_seconds + limits.answer_seconds) + 1,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again after a graceful end
    _Server(config).run([bound])


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        try:
            await super().startup(sockets)
        except OSError as error:
            raise _unusable(host, port, error) from None
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(f"http://{address} answers; Ctrl-C ends it", flush=True)


def _log_config(log: Path | None) -> dict[str, Any]:
    """One line a request, with its time."""
    handler: dict[str, Any] = {"class": "logging.StreamHandler"} if log is None else {
        "class": "logging.FileHandler", "filename": str(log)
    }  # fmt: skip
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(message)s"}},
        "handlers": {"log": {**handler, "formatter": "line"}},
        "loggers": {
            "uvicorn.access": {"handlers": ["log"], "level": "INFO", "propagate": False},
            "uvicorn.error": {"handlers": ["log"], "level": "WARNING", "propagate": False},
            "python_multipart": {"level": "ERROR"},  # it warns of every invalid form
        },
    }
