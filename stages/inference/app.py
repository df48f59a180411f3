"""The web application: /predict, /health, /openapi.json, and a page that needs no other host."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from typing import Annotated

import numpy as np
from fastapi import FastAPI, File, HTTPException, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from stages.data.convert import open_image
from stages.inference.batching import Batcher
from stages.inference.overlay import draw_png
from stages.inference.predictor import Predictor

MAX_IMAGES = 32  # most images of a request, and of a batch
MAX_SHARE = 4  # times the pixels that an image may have: most of all images of a request
MAX_WAIT = 0.002  # seconds in which a batch gathers under load
DECODERS = 2  # threads: decoding 67 million pixels, the server's limit, takes 0.6 GB, from WebP 1.1 GB


class Prediction(BaseModel):
    """A class and its probability."""

    name: str = Field(serialization_alias="class")
    probability: float


class Image(BaseModel):
    """The answer for one image."""

    name: str | None = Field(default=None, description="the file's name")
    predictions: list[Prediction] | None = Field(default=None, description="the most probable class first")
    verdict: str | None = Field(default=None, description="not sure, or none of these")
    conversions: list[str] | None = Field(default=None, description="applied to the file, such as EXIF orientation")
    overlay: str | None = Field(default=None, description="the image under its heat map, a data URL of a PNG")
    error: str | None = Field(default=None, description="what is wrong with the file; then there are no predictions")


class Answer(BaseModel):
    """The answer for all images of a request, in their order."""

    model: str
    source: str | None = Field(default=None, description="the data that the model was trained on: synthetic or real")
    images: list[Image]


class Health(BaseModel):
    """The state of the server."""

    status: str
    model: str
    source: str | None = Field(default=None, description="the data that the model was trained on: synthetic or real")
    classes: list[str]
    max_bytes: int = Field(description="bytes of the largest request")


def limit_size(app: ASGIApp, max_bytes: int) -> ASGIApp:
    """Middleware that refuses a request of more than `max_bytes` before its body is read."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        answer = app
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = dict(scope["headers"])
            length = headers.get(b"content-length")
            if length is None or b"transfer-encoding" in headers:  # chunks, whatever the length says
                answer = JSONResponse({"detail": "the request does not say its length"}, 411)
            elif int(length) > max_bytes:
                message = f"the request has {int(length):,} bytes, more than {max_bytes:,}"
                answer = JSONResponse({"detail": message}, 413)
        await answer(scope, receive, send)

    return limited


def count_pixels(files: list[bytes], max_pixels: int) -> int:
    """Pixels that will be decoded of image files, by their headers. An invalid file has none."""
    total = 0
    for data in files:
        with suppress(Exception):  # `decode` says what is wrong
            width, height = open_image(data, max_pixels).size
            total += width * height if width * height <= max_pixels else 0
    return total


def create_app(name: str, model: Predictor, max_bytes: int) -> FastAPI:
    """Create the application of a model, and build the graphs, which the first request would wait for.

    Args:
        name: name of the model, for answers.
        model: answers the requests.
        max_bytes: size of the largest request.
    """
    for count in (1, MAX_IMAGES):
        model.answer(np.zeros((count, *model.image_shape), np.uint8))
    model.explain(np.zeros((1, *model.image_shape), np.uint8), np.array([0]))
    batcher, pool = Batcher(model.answer, MAX_IMAGES, MAX_WAIT), ThreadPoolExecutor(DECODERS, "decode")

    # FastAPI's own pages load scripts from another host. A proxy may have stripped a prefix of the path: no redirects
    app = FastAPI(
        title=name,
        description="Classifies images.",
        version="1",
        docs_url=None,
        redoc_url=None,
        servers=[{"url": "."}],
        redirect_slashes=False,
    )

    app.add_middleware(limit_size, max_bytes=max_bytes)

    async def classify(file_name: str | None, data: bytes, k: int, explain: bool) -> Image:
        loop = asyncio.get_running_loop()
        try:
            pixels, conversions = await loop.run_in_executor(pool, model.decode, data)
        except ValueError as error:
            return Image(name=file_name, error=str(error))
        answer = await batcher.predict(pixels)
        order = np.argsort(-answer.probabilities, kind="stable")[:k]
        overlay = None
        if explain:
            heat = await batcher.work(model.explain, pixels[np.newaxis], order[:1])
            if heat is not None:
                png = await loop.run_in_executor(pool, draw_png, pixels, heat[0])
                overlay = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return Image(
            name=file_name,
            predictions=[
                Prediction(name=model.classes[label], probability=float(answer.probabilities[label])) for label in order
            ],
            verdict=answer.verdict,
            conversions=conversions,
            overlay=overlay,
        )

    async def classify_all(files: list[UploadFile], k: int, explain: bool) -> list[Image]:
        contents = [await file.read() for file in files]
        most = MAX_SHARE * model.max_pixels
        if len(files) > MAX_SHARE:
            total = await asyncio.get_running_loop().run_in_executor(pool, count_pixels, contents, model.max_pixels)
            if total > most:
                advice = "send fewer at a time, or smaller ones"
                raise HTTPException(413, f"the images have {total:,} pixels together, more than {most:,}; {advice}")
        named = zip(files, contents, strict=True)
        return await asyncio.gather(*(classify(file.filename, data, k, explain) for file, data in named))

    @app.post("/predict", response_model_exclude_none=True)
    async def predict(
        request: Request,
        files: Annotated[list[UploadFile], File(max_length=MAX_IMAGES)],
        k: Annotated[int, Query(ge=1, le=1000, description="classes to return, the most probable first")] = 3,
        explain: Annotated[bool, Query(description="also return what speaks for the first class, as an image")] = False,
    ) -> Answer:
        """Classify the images of a form. An invalid image among valid ones has an error of its own."""
        work = asyncio.ensure_future(classify_all(files, k, explain))
        gone = asyncio.ensure_future(request.receive())  # all it can still receive is that the client has gone
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise HTTPException(499, "the client has gone")
            images = work.result()
        finally:
            work.cancel()  # and with it what waits for a thread
            gone.cancel()
        if all(image.error for image in images):
            raise HTTPException(400, f"{images[0].name}: the file {images[0].error}")
        return Answer(model=name, source=model.source, images=images)

    @app.head("/health", include_in_schema=False)  # monitors send it
    @app.get("/health", response_model_exclude_none=True)
    async def health() -> Health:
        """Whether the server answers."""
        return Health(status="ok", model=name, source=model.source, classes=model.classes, max_bytes=max_bytes)

    text = resources.files("stages.inference").joinpath("page.html").read_text(encoding="utf-8")

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(text)

    return app
