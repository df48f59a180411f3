"""Answers requests with a model: decodes in a pool of threads, predicts in batches, explains."""

import asyncio
import base64
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, HTTPException

from stages.inference.answers import Image, Prediction
from stages.inference.batching import Batcher
from stages.inference.limits import Limits
from stages.inference.overlay import draw_png
from stages.inference.predictor import Predictor
from stages.inference.uploads import BUSY, Upload, check_scans


class Service:
    """A model that answers requests as long as `running` runs."""

    def __init__(self, model: Predictor, limits: Limits) -> None:
        self._model, self._limits = model, limits
        self._decoders = ThreadPoolExecutor(limits.decode_threads, "decode")
        self._batcher = Batcher(model.predict_pixels, limits.batch_images, limits.batch_seconds)

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Predict as long as the block runs."""
        await self._batcher.work(self._warm_up)
        task = asyncio.create_task(self._batcher.run())
        yield
        task.cancel()
        self._batcher.close()
        self._decoders.shutdown(cancel_futures=True)

    async def answer(self, uploads: list[Upload], k: int, explain: bool) -> list[Image]:
        """Predict the images of one request.

        Args:
            uploads: its files.
            k: classes to return for each.
            explain: whether to return heat maps.

        Raises:
            HTTPException: 400 no image is valid, 503 too slow.
        """
        try:
            work = asyncio.gather(*(self._predict(upload, k, explain) for upload in uploads))
            images = await asyncio.wait_for(work, self._limits.answer_seconds)
        except asyncio.TimeoutError:
            raise HTTPException(503, f"no answer in {self._limits.answer_seconds:g} seconds", BUSY) from None
        if all(image.error for image in images):
            name = f"{uploads[0].name}: " if uploads[0].name else ""
            raise HTTPException(400, f"{name}the file {images[0].error}")
        return images

    async def _predict(self, upload: Upload, k: int, explain: bool) -> Image:
        loop = asyncio.get_running_loop()
        try:
            pixels, conversions = await loop.run_in_executor(self._decoders, self._decode, upload.data)
        except ValueError as error:
            return Image(name=upload.name, error=str(error))
        probabilities = await self._batcher.predict(pixels)
        order = np.argsort(-probabilities, kind="stable")[:k]
        predictions = [
            Prediction(name=self._model.classes[label], probability=float(probabilities[label])) for label in order
        ]
        overlay = None
        if explain:
            heat = await self._batcher.work(self._model.explain, pixels[np.newaxis], order[:1])
            if heat is not None:
                png = await loop.run_in_executor(self._decoders, draw_png, pixels, heat[0])
                overlay = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return Image(
            name=upload.name,
            predictions=predictions,
            verdict=self._model.verdict(probabilities),
            conversions=conversions,
            overlay=overlay,
        )

    def _warm_up(self) -> None:
        """Build the graphs, which the first request would wait for."""
        for count in (1, self._limits.batch_images):
            self._model.predict_pixels(np.zeros((count, *self._model.image_shape), np.uint8))
        self._model.explain(np.zeros((1, *self._model.image_shape), np.uint8), np.array([0]))

    def _decode(self, data: bytes) -> tuple[np.ndarray, list[str]]:
        check_scans(data, self._limits.max_pixels)
        return self._model.decode(data)
