"""Dynamic batching: images of different requests are predicted together, in one thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")
Waiting = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]


class Batcher:
    """Gathers images for a short time, and predicts them with one call in a worker thread.

    While a batch is predicted, the next one gathers: the more clients, the larger the batches.
    """

    def __init__(self, predict: Callable[[np.ndarray], np.ndarray], max_images: int, max_wait: float) -> None:
        """Create a batcher, which predicts as long as `run` runs.

        Args:
            predict: takes images (n, …) of one shape and returns probabilities (n, classes).
            max_images: the largest n.
            max_wait: seconds that the first image of a batch waits for others.
        """
        self._predict, self._max_images, self._max_wait = predict, max_images, max_wait
        self._waiting: asyncio.Queue[Waiting] = asyncio.Queue()
        self._worker = ThreadPoolExecutor(1, "predict")

    async def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the probabilities (classes,) of an image; an error in a batch is raised for all images of it."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, future))
        return await future

    async def work(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call something else that uses the model in the worker thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    async def run(self) -> None:
        """Predict batches until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            if self._waiting.qsize() < self._max_images - 1:
                await asyncio.sleep(self._max_wait)
            while len(batch) < self._max_images and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            images, futures = zip(*batch, strict=True)
            try:
                results = list(await self.work(self._predict, np.stack(images)))
            except Exception as error:
                results = [error] * len(batch)
            for future, result in zip(futures, results, strict=True):
                if not future.done():  # its request was not given up meanwhile
                    (future.set_exception if isinstance(result, Exception) else future.set_result)(result)

    def close(self) -> None:
        """End the worker thread after what it is doing."""
        self._worker.shutdown(wait=True, cancel_futures=True)
