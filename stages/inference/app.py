"""The web application: /predict, /health, /openapi.json, and two pages that need no other host."""

import base64
import hashlib
import re
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stages.inference.answers import BODY, Answer, Error, Health
from stages.inference.limits import Limits
from stages.inference.predictor import Predictor
from stages.inference.service import Service
from stages.inference.uploads import Receiver

STATUSES = (400, 408, 413, 415, 422, 503)


def create_app(name: str, model: Predictor, limits: Limits) -> FastAPI:
    """Create the application of a model.

    Args:
        name: name of the model, for answers.
        model: answers the requests.
        limits: bounds of requests. Those of connections are the server's.
    """
    service, receiver = Service(model, limits), Receiver(limits)
    app = FastAPI(
        title=name,
        description="Classifies images.",
        version="1",
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        servers=[{"url": "."}],  # a proxy may have stripped a prefix of the path; so there are no redirects either
        redirect_slashes=False,
        lifespan=service.running,
        exception_handlers={
            HTTPException: _error,
            RequestValidationError: _error,
            ClientDisconnect: _error,
            Exception: _error,
        },
    )
    errors: dict[int | str, dict[str, Any]] = {status: {"model": Error} for status in STATUSES}

    @app.post("/predict", responses=errors, openapi_extra=BODY, response_model_exclude_none=True)
    async def predict(
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000, description="classes to return, the most probable first")] = 3,
        explain: Annotated[bool, Query(description="also return what speaks for the first class, as an image")] = False,
    ) -> Answer:
        """Classify one image, or those in a form. An invalid image among valid ones has an error of its own."""
        async with receiver.receive(request) as uploads:
            return Answer(model=name, source=model.source, images=await service.answer(uploads, k, explain))

    @app.head("/health", include_in_schema=False)  # monitors send it
    @app.get("/health", response_model_exclude_none=True)
    async def health() -> Health:
        """Whether the server answers."""
        return Health(status="ok", model=name, source=model.source, classes=model.classes, max_bytes=limits.max_bytes)

    for path, file in (("/", "page.html"), ("/docs", "docs.html")):
        app.add_route(path, _page(resources.files("stages.inference").joinpath(file).read_text(encoding="utf-8")))
    return app


def _page(text: str) -> Any:
    """A route for a page that may run its own script and style, and load nothing from another host."""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for tag, content in re.findall("<(script|style)>(.*?)</", text, re.DOTALL)
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    async def page(request: Request) -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    return page


async def _error(request: Request, error: Exception) -> Response:
    """Answer with every error as one line of JSON."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the client closed the connection"}, 400)
    return JSONResponse({"error": "an error of the server, which its log describes"}, 500)
