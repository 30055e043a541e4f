"""Work on files in threads: decoders release Python's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.progress import track

from detseg.messages import console

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], what: str) -> Iterator[_Result]:
    """What ``work`` returns for each item, in their order; a terminal shows a progress bar named ``what``."""
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        found = pool.map(work, items)
        yield from track(found, what, len(items), console=console, transient=True, disable=not console.is_terminal)
    finally:
        # It does not wait: where an error ends the loop, this may run late, in one of these threads.
        pool.shutdown(wait=False, cancel_futures=True)


def in_background(work: Callable[[], _Result]) -> Future[_Result]:
    """What ``work`` returns or raises, in a thread that the end of the process does not wait for: a server may never
    answer."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="detseg-background", daemon=True).start()
    return future
