"""Changes of valid files, each decided by a seeded generator: what disks, editors, converters and attackers do to them.

A mutator takes a valid file and a generator and gives a changed file. Some change bytes, whatever these mean; those of
a format take the file apart first, so that most of their results pass the parser and reach the checks behind it.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

Mutator = Callable[[bytes, random.Random], bytes]
MAGIC = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
"""Numbers at which arithmetic of 8, 16 and 32 bits changes sign or overflows."""

TOKENS: tuple[bytes, ...] = (
    *(b"\x00", b"\r\n", b"\xff\xfe", b"\xef\xbb\xbf"),
    b"\xed\xa0\x80",  # half of a surrogate pair in UTF-8
    b"\xc0\x80",  # a NUL in two bytes, which UTF-8 forbids
    b"\x1b[31m",
    b"\xe2\x80\xae",  # right to left from here
    *(b"NaN", b"-1", b"1e999", b"../", b"9" * 400, b"A" * 5000),
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def byte_mutator(tokens: Sequence[bytes] = ()) -> Mutator:
    """Changes one to eight places of any file; ``tokens``: pieces of the format that may be put in."""
    every = (*TOKENS, *tokens)

    def mutate(data: bytes, rng: random.Random) -> bytes:
        for _ in range(1 + min(int(rng.expovariate(0.7)), 7)):
            data = rng.choice(_CHANGES)(data, rng) if rng.random() < 0.85 else _put(data, rng.choice(every), rng)
        return data

    return mutate


def either(*mutators: Mutator) -> Mutator:
    return lambda data, rng: rng.choice(mutators)(data, rng)


def then_sometimes(first: Mutator, second: Mutator, probability: float) -> Mutator:
    """The first, and in a fraction of the cases the second on what it gave."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        data = first(data, rng)
        return second(data, rng) if rng.random() < probability else data

    return mutate


def other_encoding(data: bytes, rng: random.Random) -> bytes:
    """Text in UTF-8 as an editor may save it: with a byte order mark, or in another encoding."""
    text = data.decode("utf-8", "surrogatepass")
    encoding = rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-7", "cp037"])
    errors = "surrogatepass" if encoding.startswith("utf-") and encoding != "utf-7" else "replace"
    return text.encode(encoding, errors)


def png_chunks(data: bytes, rng: random.Random) -> bytes:
    """A PNG with chunks changed, doubled, swapped or left out, whose checksums are right all the same."""
    chunks = take_apart(data)
    for _ in range(rng.randint(1, 3)):
        if not chunks:
            break
        place = rng.randrange(len(chunks))
        name, content = chunks[place]
        match rng.randrange(6):
            case 0:
                del chunks[place]
            case 1:
                chunks.insert(rng.randrange(len(chunks) + 1), (name, content))
            case 2:
                other = rng.randrange(len(chunks))
                chunks[place], chunks[other] = chunks[other], chunks[place]
            case 3:
                chunks[place] = (rng.choice([b"tRNS", b"PLTE", b"eXIf", b"gAMA", b"acTL", b"fcTL", b"iCCP"]), content)
            case _:
                chunks[place] = (name, rng.choice(_CHANGES)(content, rng))
    return put_together(chunks)


def put_together(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def take_apart(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _flip_bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _set_byte(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) + 1), 1 + int(rng.expovariate(0.1))
    return data[:start] + data[start + length :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    return _put(data, rng.randbytes(rng.choice([1, 2, 4, 16, 100])), rng)


def _double(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) + 1), rng.choice([1, 4, 30, 200])
    return _put(data, data[start : start + length] * rng.choice([1, 1, 2, 50]), rng)


def _swap(data: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _cut_end(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _magic_number(data: bytes, rng: random.Random) -> bytes:
    number: int = rng.choice(MAGIC)
    size = rng.choice([1, 2, 4])
    written = (number & (1 << 8 * size) - 1).to_bytes(size, rng.choice(["big", "little"]))
    place = rng.randrange(len(data) + 1)
    return data[:place] + written + data[place + size :]


def _put(data: bytes, piece: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + piece + data[place:]


_CHANGES: tuple[Mutator, ...] = (
    *(_flip_bit, _flip_bit, _set_byte, _delete, _insert, _double, _swap, _cut_end, _magic_number, _magic_number),
)
