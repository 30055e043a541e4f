"""Dynamic batching: images that wait are predicted together, in a thread that belongs to the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from detseg.structures import UInt8Array


@dataclass(frozen=True)
class Predicted:
    """A result and how it came about; times in seconds."""

    result: Any
    waited: float
    took: float
    batch_size: int


@dataclass(frozen=True)
class _Waiting:
    image: UInt8Array
    answer: asyncio.Future[Predicted]
    since: float


class Batcher:
    """Predicts for images as they come, several at a time.

    A batch is what waits when the thread is free. Only if more images are on their way (``coming``) and the batch is
    not full, it waits for them, so that a single client never pays for the batching.

    Args:
        predict: a list of images → a result for each; called in one thread.
        max_batch: images of a batch, at most.
        max_wait: seconds that the first image of a batch waits for others, at most.
        on_batch: is told the size of each batch.
    """

    def __init__(
        self,
        predict: Callable[[list[UInt8Array]], Sequence[Any]],
        max_batch: int,
        max_wait: float,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._predict, self._max_batch, self._max_wait, self._on_batch = predict, max_batch, max_wait, on_batch
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._coming = 0
        self.is_busy = False
        """Whether a batch is in the network."""
        self.room = asyncio.Semaphore(2 * max_batch)
        """For images in memory: a batch in the network, and the next one."""

    @contextmanager
    def coming(self) -> Iterator[None]:
        """An image is on its way within the block."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def predict(self, image: UInt8Array) -> Predicted:
        """The result of (H, W, 3) uint8 RGB; raises what the predictor raised for this image."""
        answer: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Waiting(image, answer, perf_counter()))
        return await answer

    async def run(self) -> None:
        """Predict until cancelled."""
        while True:
            await self._answer(await self._gather())  # without names, so that images go before the next ones come

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    async def _gather(self) -> list[_Waiting]:
        batch = [await self._waiting.get()]
        end = perf_counter() + self._max_wait
        while len(batch) < self._max_batch:
            if self._waiting.empty() and not self._coming:
                break
            try:
                async with asyncio.timeout(max(end - perf_counter(), 0) if self._waiting.empty() else None):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break
        return batch

    async def _answer(self, gathered: list[_Waiting]) -> None:
        batch = [one for one in gathered if not one.answer.done()]  # some gave up
        if not batch:
            return
        self._on_batch(len(batch))
        self.is_busy = True
        begin, images = perf_counter(), [one.image for one in batch]
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._results, images)
        took = perf_counter() - begin
        self.is_busy = False
        for one, result in zip(batch, found, strict=True):
            if one.answer.done():
                continue
            if isinstance(result, Exception):
                one.answer.set_exception(result)
            else:
                one.answer.set_result(Predicted(result, begin - one.since, took, len(batch)))

    def _results(self, images: list[UInt8Array]) -> Sequence[Any]:
        """A result or an exception for each; an image that fails does not take the others of its batch along."""
        try:
            return self._predict(images)
        except Exception as error:  # whatever it is, its request is answered, and the thread lives on
            if len(images) == 1:
                return [error]
        return [self._results([image])[0] for image in images]
