"""Dynamic batching: images of different requests are predicted together."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

Result = TypeVar("Result")
Value = TypeVar("Value")


class Batcher(Generic[Result]):
    """Predicts in one thread. While a batch is predicted the next one gathers, so more clients make larger batches."""

    def __init__(self, predict: Callable[[np.ndarray], Iterable[Result]], max_images: int, max_wait: float) -> None:
        """Create a batcher.

        Args:
            predict: takes images (n, …) of one shape and returns n results.
            max_images: the largest n.
            max_wait: seconds in which a batch gathers if the one before had several images; a lone client never waits.
        """
        self._predict, self._max_images, self._max_wait = predict, max_images, max_wait
        self._waiting: list[tuple[np.ndarray, asyncio.Future[Result]]] = []
        self._busy = False
        self._thread = ThreadPoolExecutor(1, "predict")

    async def predict(self, image: np.ndarray) -> Result:
        """Return the result of an image; an error in a batch is raised for all images of it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        if not self._busy:
            self._busy = True
            self._task = asyncio.create_task(self._run())  # the loop itself keeps only a weak reference
        return await future

    async def work(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call something else that uses the model in the same thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _run(self) -> None:
        """Predict until nothing waits."""
        images: tuple[np.ndarray, ...] = ()
        while self._waiting:
            if len(images) > 1 and len(self._waiting) < self._max_images:
                await asyncio.sleep(self._max_wait)
            self._waiting = [each for each in self._waiting if not each[1].done()]  # whose clients have not gone
            if not self._waiting:
                break
            images, futures = zip(*self._waiting[: self._max_images], strict=True)
            del self._waiting[: self._max_images]
            try:
                results: Iterable[Result | Exception] = await self.work(self._predict, np.stack(images))
                results = [result for _, result in zip(images, results, strict=True)]
            except Exception as error:
                results = [error] * len(images)
            for future, result in zip(futures, results, strict=True):
                if not future.done():  # its client may have gone
                    (future.set_exception if isinstance(result, Exception) else future.set_result)(result)
            await asyncio.sleep(0)
        self._busy = False
