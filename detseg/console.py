"""The terminal: one console for the messages of ``logging.getLogger("detseg")`` and for progress bars, so that neither
erases the other.

Library code logs and never prints; whoever owns the process decides where messages go. The commands, and a training or
evaluation called from Python where nobody has set up logging, show them here.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.text import Text

logger = logging.getLogger("detseg")

console = Console(markup=False, emoji=False, highlight=False)
"""Writes to standard output, whatever that is at the time."""


class ConsoleHandler(logging.Handler):
    """Prints each message on ``console``; warnings stand out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; lines are not wrapped, so that they can be copied."""
        warns = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if warns else record.getMessage()
        console.print(Text(text, style="bold yellow" if warns else ""), soft_wrap=True)


@contextmanager
def messages_on_console() -> Iterator[None]:
    """Messages are shown on ``console`` within the block, unless logging was set up to show them already."""
    if logger.handlers or (logger.hasHandlers() and logger.isEnabledFor(logging.INFO)):
        yield
        return
    handler, level, propagate = ConsoleHandler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root logger would show them twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def rendered(table: RenderableType) -> str:
    """What rich would show, as plain text 80 columns wide."""
    page = Console(width=80, file=io.StringIO(), markup=False, emoji=False)
    with page.capture() as text:
        page.print(table)
    return text.get().rstrip("\n")
