"""Messages: how values, names and near misses stand in them, and the console that shows them.

What a message repeats comes from the user's files and may hold anything: line breaks that look like a second message,
escape sequences that move the cursor, a megabyte of text. It stands there on one line, safe for a terminal, and cut.

Library code logs to ``logging.getLogger("detseg")`` and never prints; whoever owns the process decides where messages
go. The commands, and a training or evaluation called from Python where nobody has set up logging, show them on one
console for messages and progress bars, so that neither erases the other.
"""

from __future__ import annotations

import difflib
import io
import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

logger = logging.getLogger("detseg")

console = Console(markup=False, emoji=False, highlight=False)  # writes to standard output, whatever that is at the time

_MAX_LINE = 4000
_MAX_ERROR = 300
_MAX_NAME = 300  # the names of files have up to 255 characters, and folders before them
_MAX_VALUE = 100
_MAX_SETTING = 60
_MAX_LISTED = 10


def printable(text: str) -> str:
    """Text with everything that could move a terminal's cursor or change its colour as escapes; cut where it is longer
    than any message."""
    return _cut(_escaped(text[: _MAX_LINE + 1]), _MAX_LINE)


def shown(value: object) -> str:
    """A value as Python writes it: quoted where it is text, white space folded, cut after 100 characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        text = f"a {type(value).__name__}"
    return _folded(text, _MAX_VALUE)


def quoted(value: object) -> str:
    """A value as a configuration file writes it (true, null, .inf), cut after 60 characters."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, float) and not math.isfinite(value):
        text = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    elif isinstance(value, dict) and value:
        text = "a mapping with " + ", ".join(value)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    text = _escaped(text)
    return text if len(text) <= _MAX_SETTING else text[: _MAX_SETTING - 3] + "..."


def listed(names: Sequence[str]) -> str:
    """The names in a row, cut after ten."""
    more = f", and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(_cut(printable(name), _MAX_NAME) for name in names[:_MAX_LISTED]) + more


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``3 classes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return ["  ".join(row).rstrip() for row in cells]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` with the known word nearest to ``word``, or nothing where none is near; whatever the
    case of the letters."""
    words = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), words, n=1)
    return f" (did you mean {shown(words[near[0]])}?)" if near else ""


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line, for use inside one of our messages."""
    return _folded(str(error), _MAX_ERROR) or type(error).__name__


def without_secrets(text: str) -> str:
    """Text whose addresses have no passwords: ``postgresql://user:***@host/runs?token=***``."""
    text = re.sub(r"(://[^\s/:@]*:)[^\s/]+@", r"\1***@", text)
    return re.sub(r"(?i)([?&][\w-]*(?:passw|pwd|pw|secret|token|key)[\w-]*=)[^\s&'\"]+", r"\1***", text)


def _folded(text: str, most: int) -> str:
    return _cut(_escaped(" ".join(text[: 20 * most].split())), most)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


class ConsoleHandler(logging.Handler):
    """Prints each message on ``console``; warnings stand out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; lines are not wrapped, so that they can be copied."""
        warns = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if warns else record.getMessage()
        console.print(Text(text, style="bold yellow" if warns else ""), soft_wrap=True)


_handler, _lock = ConsoleHandler(), threading.Lock()
_before: list[tuple[int, bool]] = []  # level and propagation before each block that is open, in any thread


@contextmanager
def messages_on_console() -> Iterator[None]:
    """Messages are shown on ``console`` within the block, unless logging was set up to show them already; of several
    blocks that are open at once, in threads, until the last is left."""
    with _lock:
        shows = bool(_before) or not (logger.handlers or (logger.hasHandlers() and logger.isEnabledFor(logging.INFO)))
        if shows:
            _before.append((logger.level, logger.propagate))
            logger.addHandler(_handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False  # a handler of the root logger would show them twice
    try:
        yield
    finally:
        with _lock:
            if shows:
                level, logger.propagate = _before.pop()
                logger.setLevel(level)
                if not _before:
                    logger.removeHandler(_handler)


@contextmanager
def messages_to_file(path: Path, shows: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """What this thread says within the block is added to a file; only what ``shows`` lets pass is shown as well."""
    thread = threading.get_ident()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file:

        def passes(record: logging.LogRecord) -> bool:
            if record.thread != thread:
                return True
            file.write(f"{record.getMessage()}\n")
            return shows(record)

        logger.addFilter(passes)
        try:
            yield
        finally:
            logger.removeFilter(passes)


def rendered(table: RenderableType) -> str:
    """What rich would show on ``console``, as plain text at least 80 columns wide."""
    page = Console(width=max(80, console.width), file=io.StringIO(), markup=False, emoji=False)
    with page.capture() as text:
        page.print(table)
    return text.get().rstrip("\n")
