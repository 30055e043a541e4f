"""Scripts without a ``__main__`` guard: a spawned process of a loader runs such a script again, from its beginning.

So it comes to the script's own ``detseg.train`` while it starts, and could start no loader there. It leaves instead,
and the loader that started it says why.
"""

from __future__ import annotations

import sys

EXIT_NO_GUARD = 78
"""EX_CONFIG of sysexits.h; by it the loader knows why its process has left."""

NO_GUARD = (
    "data.num_workers: the loader's processes run your script again from its beginning; put what it does behind "
    '`if __name__ == "__main__":`, or set data.num_workers to 0'
)


def leave_if_starting() -> None:
    """Raise SystemExit in a process that is still running its parent's script as a module, to begin its own work."""
    main, again = sys.modules.get("__main__"), sys.modules.get("__mp_main__")
    # Once a spawned process has started these are one module; in any other process neither is called __mp_main__.
    if again is not None and again.__name__ == "__mp_main__" and again is not main:
        raise SystemExit(EXIT_NO_GUARD)
