"""Batches hold no image longer than they must, and an idle service gives memory back."""

from __future__ import annotations

import asyncio
import threading
import weakref

import numpy as np
import pytest

from detseg.serve.batching import Batcher
from detseg.serve.models import ServedModel
from tests.serve.servers import ask, running
from tests.serve.test_service import FakeDetector, png


def test_images_go_with_their_answers() -> None:
    """Not with the next image, which may be hours away."""

    async def predict() -> None:
        batcher = Batcher(lambda images: [len(image) for image in images], 8, 0.0)
        running = asyncio.create_task(batcher.run())
        image = np.zeros((3, 4, 3), dtype=np.uint8)
        seen: weakref.ref[object] = weakref.ref(image)
        assert (await batcher.predict(image)).result == 3
        del image
        await asyncio.sleep(0.05)
        assert seen() is None
        running.cancel()
        batcher.close()

    asyncio.run(predict())


def test_an_idle_service_gives_memory_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, given = FakeDetector(), threading.Semaphore(0)
    monkeypatch.setattr("detseg.serve.app._IDLE_SECONDS", 0.05)
    monkeypatch.setattr("detseg.serve.app.give_freed_memory_back", given.release)
    with running([ServedModel("fake", detector)]) as client:
        for _ in range(2):
            assert ask(client, png()).status_code == 200
            assert given.acquire(timeout=5)
            assert not given.acquire(timeout=0.15)
        detector.gate.clear()
        thread = threading.Thread(target=ask, args=(client, png()))
        thread.start()
        assert not given.acquire(timeout=0.2)  # a batch is in the network
        detector.gate.set()
        thread.join()
        assert given.acquire(timeout=5)
