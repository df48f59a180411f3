"""Images of several requests in one batch."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np

from stages.inference.batching import Batcher

Value = TypeVar("Value")


def batched(
    predict: Callable[[np.ndarray], np.ndarray],
    use: Callable[[Batcher[np.ndarray]], Awaitable[Value]],
    max_wait: float = 0.05,
) -> Value:
    """What the coroutine of `use` returns with a batcher of four images."""

    async def main() -> Value:
        return await asyncio.wait_for(use(Batcher(predict, 4, max_wait)), 10)

    return asyncio.run(main())


def test_each_image_gets_its_own_row_of_batches_up_to_the_limit() -> None:
    sizes = []

    def double(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return 2 * images

    async def use(batcher: Batcher[np.ndarray]) -> list[np.ndarray]:
        return await asyncio.gather(*(batcher.predict(np.array([number])) for number in range(10)))

    assert [int(row[0]) for row in batched(double, use)] == list(range(0, 20, 2))
    assert sizes == [4, 4, 2]


def test_image_whose_client_has_gone_is_not_predicted() -> None:
    seen: list[int] = []

    def predict(images: np.ndarray) -> np.ndarray:
        seen.extend(images[:, 0])
        return images

    async def use(batcher: Batcher[np.ndarray]) -> None:
        clients = [asyncio.create_task(batcher.predict(np.array([number]))) for number in range(12)]
        await asyncio.sleep(0)
        for client in clients[1:-1]:
            client.cancel()
        await asyncio.wait(clients)

    batched(predict, use)
    assert seen == [0, 11]


def test_lone_client_waits_for_nobody() -> None:
    async def use(batcher: Batcher[np.ndarray]) -> list[np.ndarray]:
        return [await batcher.predict(np.array([number])) for number in range(3)]

    assert len(batched(lambda images: images, use, max_wait=60)) == 3


def test_model_that_answers_for_fewer_images_is_an_error_and_not_a_server_that_waits() -> None:
    async def use(batcher: Batcher[np.ndarray]) -> list[np.ndarray | BaseException]:
        return [
            (await asyncio.gather(batcher.predict(np.array([number])), return_exceptions=True))[0]
            for number in range(2)
        ]

    assert [type(result) for result in batched(lambda images: images[1:], use)] == [ValueError, ValueError]


def test_error_reaches_all_images_of_its_batch_and_no_later_one() -> None:
    def fail_on_zero(images: np.ndarray) -> np.ndarray:
        if not images.all():
            raise ArithmeticError("zero")
        return images

    async def use(batcher: Batcher[np.ndarray]) -> tuple[list[np.ndarray | BaseException], np.ndarray]:
        images = (batcher.predict(np.array([number])) for number in (0, 1))
        failed = await asyncio.gather(*images, return_exceptions=True)
        return failed, await batcher.predict(np.array([5]))

    failed, after = batched(fail_on_zero, use)
    assert [type(error) for error in failed] == [ArithmeticError, ArithmeticError]
    assert after.tolist() == [5]
