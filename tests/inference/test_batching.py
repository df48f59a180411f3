"""Images of several requests in one batch."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from stages.inference.batching import Batcher


def batched(predict: Callable[[np.ndarray], np.ndarray], use: Callable[[Batcher], Any], max_images: int = 4) -> Any:
    """What the coroutine of `use` returns while a batcher runs."""

    async def main() -> Any:
        batcher = Batcher(predict, max_images, 0.05)
        task = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(use(batcher), 10)
        finally:
            task.cancel()
            batcher.close()

    return asyncio.run(main())


def test_each_image_gets_its_own_row_of_batches_up_to_the_limit() -> None:
    sizes = []

    def double(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return 2 * images

    async def use(batcher: Batcher) -> Any:
        return await asyncio.gather(*(batcher.predict(np.array([number])) for number in range(10)))

    assert [int(row[0]) for row in batched(double, use)] == list(range(0, 20, 2))
    assert sizes == [4, 4, 2]


def test_error_reaches_all_images_of_its_batch_and_no_later_one() -> None:
    def fail_on_zero(images: np.ndarray) -> np.ndarray:
        if not images.all():
            raise ArithmeticError("zero")
        return images

    async def use(batcher: Batcher) -> Any:
        images = (batcher.predict(np.array([number])) for number in (0, 1))
        failed = await asyncio.gather(*images, return_exceptions=True)
        return failed, await batcher.predict(np.array([5]))

    failed, after = batched(fail_on_zero, use)
    assert [type(error) for error in failed] == [ArithmeticError, ArithmeticError]
    assert after.tolist() == [5]
