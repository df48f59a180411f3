"""Dynamic batching: images of different requests are predicted together, in one thread."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")


class Batcher:
    """Gathers images for a short time, and predicts them with one call in a worker thread.

    While a batch is predicted, the next one gathers: the more clients, the larger the batches.
    """

    def __init__(self, predict: Callable[[np.ndarray], np.ndarray], max_images: int, max_wait: float) -> None:
        """Create it; `run` has to run for anything to be predicted.

        Args:
            predict: of images (n, …), all in the same shape, to probabilities (n, classes).
            max_images: the largest n.
            max_wait: seconds that the first image of a batch waits for others.
        """
        self._predict, self._max_images, self._max_wait = predict, max_images, max_wait
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "predict")

    async def predict(self, image: np.ndarray) -> np.ndarray:
        """The probabilities (classes,) of an image. An error while predicting is raised for all images of a batch."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        self._arrived.set()
        if len(self._waiting) >= self._max_images:
            self._full.set()
        return await future

    async def work(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call something else that uses the model in the worker thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    async def run(self) -> None:
        """Predict batches until it is cancelled."""
        while True:
            await self._arrived.wait()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._max_wait)
            batch = self._next_batch()
            if batch:
                await self._answer(batch)

    def close(self) -> None:
        """End the worker thread after what it is doing."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _next_batch(self) -> list[tuple[np.ndarray, "asyncio.Future[np.ndarray]"]]:
        batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        while self._waiting and len(batch) < self._max_images:
            image, future = self._waiting.popleft()
            if not future.done():  # its request may have been given up
                batch.append((image, future))
        if not self._waiting:
            self._arrived.clear()
        if len(self._waiting) < self._max_images:
            self._full.clear()
        return batch

    async def _answer(self, batch: list[tuple[np.ndarray, "asyncio.Future[np.ndarray]"]]) -> None:
        images, futures = zip(*batch, strict=True)
        try:
            rows = await self.work(self._predict, np.stack(images))
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, row in zip(futures, rows, strict=True):
            if not future.done():
                future.set_result(row)
