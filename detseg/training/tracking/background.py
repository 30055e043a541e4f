"""Calls that may wait for a server of others, made in a thread of their own, so that a training waits for none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

_MOST = 500  # calls that wait


class Background:
    """Makes calls in their order, in a thread that begins with the first of them and keeps no process alive."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = threading.Semaphore(_MOST)
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None], seconds: float) -> bool:
        """Have a call made, which raises nothing; False: too many wait already, for so many seconds now."""
        if not self._room.acquire(timeout=seconds):
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._make, daemon=True)
            self._thread.start()
        self._calls.put(call)
        return True

    def finish(self, seconds: float) -> bool:
        """Wait until all calls are made; False: they are not after so many seconds."""
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._calls.put(None)
        thread.join(seconds)
        return not thread.is_alive()

    def _make(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._room.release()
