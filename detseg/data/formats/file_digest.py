"""What the bytes of a file are, in 32: SHA-256 over those of its pieces, so that several threads can work at it."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_PIECE = 32 << 20
_BUFFER = 1 << 20


class FileDigest:
    """The digest of bytes that come one after the other."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._piece = hashlib.sha256()
        self._free = _PIECE

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while len(view) >= self._free:
            self._piece.update(view[: self._free])
            view = view[self._free :]
            self._pieces.append(self._piece.digest())
            self._piece, self._free = hashlib.sha256(), _PIECE
        self._piece.update(view)
        self._free -= len(view)

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return _joined([*self._pieces, self._piece.digest()])


def digest_of(file: Path, start: int = 0) -> str:
    """What ``FileDigest`` gives for the bytes of a file from ``start`` on.

    Raises:
        OSError: it cannot be read.
    """
    starts = range(start, max(file.stat().st_size, start) + 1, _PIECE)
    with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1, 4)) as threads:
        return _joined(list(threads.map(lambda begin: _piece_of(file, begin), starts)))


def _piece_of(file: Path, start: int) -> bytes:
    found, left = hashlib.sha256(), _PIECE
    buffer = memoryview(bytearray(_BUFFER))
    with file.open("rb", buffering=0) as source:
        source.seek(start)
        while left and (count := source.readinto(buffer[:left])):
            found.update(buffer[:count])
            left -= count
    return found.digest()


def _joined(pieces: list[bytes]) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()
