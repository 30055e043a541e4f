"""Reads a large JSON file whose long lists of objects are read lot by lot, so that memory does not grow with the file.

What is given out is exactly what ``json.loads`` would give of the file, and no object has a key twice; where that
cannot be shown at little cost, `UnusualJsonError` says that the file must be read by the slow way.  It words no error.

How a key that is there twice is found: msgspec keeps the last of equal keys in silence, but it tells which keys an
object has, and a key ends on ``":`` (or ``" :``) in the text.  Such places may also lie inside strings, so there are at
least as many as keys.  If there are just as many as the objects have different keys, none is there twice.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detseg.data.formats.file_digest import FileDigest

BLOCK_BYTES = 2 << 20
"""So much is read at a time; a lot is about as long."""

_EDGE = 4096
"""So much of the end of a block is looked at again with the next one: the beginning of a list may be cut in two."""

_BORDER = re.compile(rb"\}\s*,\s*(?=\{)")
_BETWEEN = re.compile(rb"\}\s*,\s*\Z")
_CLOSES = re.compile(rb"\}\s*\]")
_MOST_TRIES = 8
"""So many places are tried as the end of a list or the border of an object, which nested objects hide."""

_MOST_BLOCKS = 32
"""An object that is longer than so many blocks is unusual."""

_DICTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


class UnusualJsonError(Exception):
    """The file is damaged, or so unlike others that it must be read object by object."""


def read_in_lots(
    file: Path, keys: tuple[str, ...], take: Callable[[str, Lot], None], digest: FileDigest
) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Args:
        file: in UTF-8.
        keys: whose values are long lists of objects.
        take: is given a key and a lot of its list, in the order of the file.  It decodes all of its text by msgspec,
            and raises what msgspec raises.
        digest: is given the bytes of the file.

    Returns:
        the file's object; lists that went to ``take`` are empty in it.

    Raises:
        OSError: the file cannot be read.
        UnusualJsonError: see above.
    """
    if not file.is_file():
        raise UnusualJsonError  # of a pipe there would be nothing left to read in the slow way
    block_bytes = min(BLOCK_BYTES, file.stat().st_size + 1)
    with file.open("rb", buffering=0) as source, ThreadPoolExecutor(1) as beside, _no_collection():
        reader = _Reader(keys, take, beside)
        while block := source.read(block_bytes):
            hashing = beside.submit(digest.update, block)  # while msgspec works
            reader.add(block)
            hashing.result()
        return reader.finish()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the collector of cycles: lots have none, but so many objects that it would look at all of the process
    again and again (a fifth of the time)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class Lot:
    """A part of a list of objects.

    Attributes:
        text: a list of JSON, ``[{...}, {...}]``.
        places: how many places of it look like the end of a key; they are counted while msgspec works.
    """

    text: bytes
    places: Future[int]

    def check_keys(self, known: int) -> None:
        """Make sure that no object has a key twice.

        Args:
            known: how many different keys the objects have; fewer where only some were looked for.

        Raises:
            UnusualJsonError: this cannot be shown.
        """
        places = self.places.result()
        if places == known or places == sum(map(len, _DICTS.decode(self.text))):
            return
        if places != _count_keys(msgspec.json.decode(self.text)):
            raise UnusualJsonError


class _Reader:
    """Parts a text into lots and a skeleton, which is the text with a marker in place of each list.

    The text is one of JSON if the skeleton is, its lists hold the markers and nothing else, and the lots are: a lot
    that was cut inside a string, a list or an object is none.
    """

    def __init__(self, keys: tuple[str, ...], take: Callable[[str, Lot], None], beside: Executor) -> None:
        self._take = take
        self._beside = beside
        self._opens = re.compile(rb'"(%s)"\s*:\s*\[\s*(?=\{)' % "|".join(keys).encode())
        self._rest = b""
        self._skeleton: list[bytes] = []
        self._open: str | None = None
        self._markers: dict[str, int] = {}

    def add(self, block: bytes) -> None:
        """Take what can be taken of the text so far."""
        self._rest += block
        while self._step():
            pass
        if self._open is None:
            self._skeleton.append(self._rest[:-_EDGE])
            self._rest = self._rest[-_EDGE:]

    def finish(self) -> dict[str, Any]:
        """The skeleton's object, after all of the text."""
        while self._open is not None:
            if not self._close():
                raise UnusualJsonError
            while self._step():
                pass
        text = b"".join([*self._skeleton, self._rest])
        try:
            content = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise UnusualJsonError from error
        if not isinstance(content, dict):
            raise UnusualJsonError
        for key, marker in self._markers.items():
            if content.get(key) != [marker] or text.count(b"%d" % marker) != 1:
                raise UnusualJsonError
            content[key] = []
        return content

    def _step(self) -> bool:
        """Open a list, give out a lot, or close the list; whether there may be more to do with the same text."""
        if self._open is None:
            opening = self._opens.search(self._rest)
            if opening is None:
                return False
            self._open = opening[1].decode()
            if self._open in self._markers:
                raise UnusualJsonError
            self._markers[self._open] = 10**18 + len(self._markers)
            self._skeleton += [self._rest[: opening.end()], b"%d" % self._markers[self._open]]
            self._rest = self._rest[opening.end() :]
            return True
        end, begin = _last_border(self._rest)
        if end and self._give(end):
            self._rest = self._rest[begin:]
            return False
        if end and self._close():
            return True
        borders = list(_outside(_BORDER, self._rest)) if end else []  # the last one was within an object
        if borders and self._give(borders[-1].start() + 1):
            self._rest = self._rest[borders[-1].end() :]
        elif len(self._rest) > _MOST_BLOCKS * BLOCK_BYTES:
            raise UnusualJsonError
        return False

    def _close(self) -> bool:
        """Give out the last lot of the open list, if it ends in the text so far."""
        for closing in islice(_outside(_CLOSES, self._rest), _MOST_TRIES):
            if self._give(closing.start() + 1):
                self._rest = self._rest[closing.end() - 1 :]
                self._open = None
                return True
        return False

    def _give(self, end: int) -> bool:
        """Give out a lot; False if it is no JSON by itself."""
        assert self._open is not None
        text = b"".join([b"[", memoryview(self._rest)[:end], b"]"])
        try:
            if not text.isascii():
                text.decode()  # msgspec passes over strings that nobody wants without a look at their bytes
            self._take(self._open, Lot(text, self._beside.submit(key_places, text)))
        except (msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
            raise UnusualJsonError from error
        except msgspec.DecodeError:
            return False
        return True


def _last_border(text: bytes) -> tuple[int, int]:
    """Where the last but one object of a list ends, and where the last one begins, of which there may be a part; zeros
    if that was not found."""
    begin = len(text)
    for _ in range(_MOST_TRIES):
        begin = text.rfind(b"{", 0, begin)
        if begin <= 0:
            break
        window = max(begin - _EDGE, 0)
        border = _BETWEEN.search(text[window:begin])
        if border is not None:
            return window + border.start() + 1, begin
    return 0, 0


def _outside(pattern: re.Pattern[bytes], text: bytes) -> Iterator[re.Match[bytes]]:
    """The matches, which begin with a closing brace, before which as many braces and brackets were opened as closed."""
    depth = start = 0
    for match in pattern.finditer(text):
        end = match.start() + 1
        depth += sum(text.count(c, start, end) for c in (b"{", b"[")) - sum(
            text.count(c, start, end) for c in (b"}", b"]")
        )
        start = end
        if depth == 0:
            yield match


def key_places(text: bytes) -> int:
    """How many places of a JSON text look like the end of a key: as many as there are keys, or more."""
    codes = np.frombuffer(text, dtype=np.uint8)
    before = codes[np.flatnonzero(codes == ord(":")) - 1]
    return int(np.count_nonzero((before == ord('"')) | (before <= ord(" "))))


def _count_keys(value: Any) -> int:
    """The keys of all objects in a value."""
    found, waiting = 0, [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found += len(value)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise UnusualJsonError
    return found
