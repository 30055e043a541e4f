"""Work on many files in threads: decoders release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
