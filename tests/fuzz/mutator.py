"""Changes of valid files, each decided by a seeded generator: what disks, editors, converters and attackers do to them.

A mutator takes a valid file and a generator and gives a changed file. Some change bytes, whatever these mean; those of
a format take the file apart first, so that most of their results pass the parser and reach the checks behind it."""

from __future__ import annotations

import copy
import json
import random
import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

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


def _put(data: bytes, piece: bytes, rng: random.Random, replaced: int = 0) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + piece + data[place + replaced :]


def _flip_bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _double(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) + 1), rng.choice([1, 4, 30, 200])
    return _put(data, data[start : start + length] * rng.choice([1, 1, 2, 50]), rng)


def _swap(data: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _magic_number(data: bytes, rng: random.Random) -> bytes:
    number, size = rng.choice(MAGIC), rng.choice([1, 2, 4])
    written = (number & (1 << 8 * size) - 1).to_bytes(size, rng.choice(["big", "little"]))
    return _put(data, written, rng, size)


_CHANGES: tuple[Mutator, ...] = (
    *(_flip_bit, _flip_bit, _double, _swap, _magic_number, _magic_number),
    lambda data, rng: _put(data, rng.randbytes(1), rng, 1),  # another byte
    lambda data, rng: _put(data, b"", rng, 1 + int(rng.expovariate(0.1))),  # some bytes less
    lambda data, rng: _put(data, rng.randbytes(rng.choice([1, 2, 4, 16, 100])), rng),  # some more
    lambda data, rng: data[: rng.randrange(len(data) + 1)],  # the end is missing
)


class Pairs(list[tuple[str, Any]]):
    """A JSON object: files can hold a key twice."""


class Raw(str):
    """What is written as it is, whether it is JSON or not."""


TEXTS = (
    *("", " ", "0", "1.5", "nan", "inf", "-1", "1e400", "true", "x" * 20_000, "\x00", "a\nb", "\x1b[31m\x07"),
    *("\u202e\u2066", "\ud800", "é\u0301ß漢字", "../x", "/etc/passwd", "C:\\x", "a/b/../../..", "%s{0}{x!r}"),
    *("a" * 300 + ".png", "!!python/object:os.system", "&a", "*a", "<<"),
)

NUMBERS = (
    *(0, -0.0, 1, -1, 0.5, 3, 255, 256, 2**31, -(2**31), 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 1e15, 1e300),
    1e-300,
)

ODD: tuple[Any, ...] = (
    *(*TEXTS, *NUMBERS, None, True, False, [], Pairs(), [[]], [None], Raw("NaN"), Raw("Infinity")),
    *(Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), Raw("[" * 900 + "]" * 900)),
    *(Raw("[" * 60_000 + "]" * 60_000), Raw('{"a":' * 200 + "1" + "}" * 200), Raw("1" + "0" * 400)),
    *(Raw("0x1F"), Raw(".nan"), Raw("-.inf")),
)
"""Values that a file can hold where another one is expected."""


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    return _json(mutated(json.loads(data, object_pairs_hook=Pairs), rng)).encode("utf-8", "surrogatepass")


def mutate_yaml(data: bytes, rng: random.Random) -> bytes:
    """In the style of JSON, which is YAML; the changes of bytes have the other one."""
    return mutate_json(json.dumps(yaml.safe_load(data)).encode(), rng)


def mutated(tree: Any, rng: random.Random) -> Any:
    """A tree with one to four nodes changed; it must not be a leaf."""
    top = [copy.deepcopy(tree)]
    for _ in range(1 + min(int(rng.expovariate(0.9)), 3)):
        slots = list(_slots(top))
        holder, place = rng.choice(slots)
        _change(holder, place, slots, rng)
        top = top or [None]
    return top[0]


def _slots(holder: list[Any]) -> Iterator[tuple[list[Any], int]]:
    for place in range(len(holder)):
        yield holder, place
        value = _get(holder, place)
        if isinstance(value, list):
            yield from _slots(value)


def _get(holder: list[Any], place: int) -> Any:
    return holder[place][1] if isinstance(holder, Pairs) else holder[place]


def _set(holder: list[Any], place: int, value: Any) -> None:
    holder[place] = (holder[place][0], value) if isinstance(holder, Pairs) else value


def _change(holder: list[Any], place: int, slots: list[tuple[list[Any], int]], rng: random.Random) -> None:
    value, (other, there) = _get(holder, place), rng.choice(slots)
    match rng.randrange(9):
        case 0:
            del holder[place]
        case 1:  # in an object: the key twice
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[place]))
        case 2:
            _set(holder, place, copy.deepcopy(_get(other, there)))
        case 3 if isinstance(holder, Pairs):
            keys = [key for pairs, _ in slots if isinstance(pairs, Pairs) for key, _ in pairs]
            holder[place] = (rng.choice([*TEXTS, *keys]), value)
        case 4:
            _set(holder, place, [value] if rng.random() < 0.5 else Pairs([("a", value)]))
        case 5 | 6 if isinstance(value, int | float) and not isinstance(value, bool):
            _set(holder, place, rng.choice([-value, value + 0.5, value * 10**6, value + 1, value - 1, str(value)]))
        case _:
            _set(holder, place, copy.deepcopy(rng.choice(ODD)))


def _json(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {_json(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_json(item) for item in value) + "]"
    return json.dumps(value)


def mutate_xml(data: bytes, rng: random.Random) -> bytes:
    """XML with one to four elements changed; now and then with another head."""
    root = ET.fromstring(data)
    for _ in range(1 + min(int(rng.expovariate(0.9)), 3)):
        _change_element(root, rng)
    text = ET.tostring(root, encoding="unicode")
    if rng.random() < 0.1:
        text = rng.choice(XML_HEADS) + text
    if rng.random() < 0.03:
        depth = rng.choice([900, 3000, 20_000])
        text = text.replace("</", "<x>" * depth + "</x>" * depth + "</", 1)
    return text.encode("utf-8", "surrogatepass")


XML_HEADS = (
    *('<?xml version="1.0" encoding="utf-16"?>', '<?xml version="1.0" encoding="x-unknown"?>'),
    *('<?xml version="1.0" encoding="cp037"?>', '<?xml version="1.0" encoding="rot13"?>'),
    *('<?xml version="1.0" encoding="punycode"?>', '<?xml version="9.9"?>', "<!DOCTYPE annotation>"),
    *('<!DOCTYPE a [<!ENTITY b "bbb"><!ENTITY c "&b;&b;">]>', "<!--" + "-" * 10, "\ufeff", " ", "<a/>"),
)


def _change_element(root: ET.Element, rng: random.Random) -> None:
    parents = [element for element in root.iter() if len(element)]
    parent = rng.choice(parents or [root])
    place = rng.randrange(max(len(parent), 1))
    child = parent[place] if len(parent) else parent
    match rng.randrange(9):
        case 0 if len(parent):
            parent.remove(child)
        case 1:
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(child))
        case 2:
            parent.append(copy.deepcopy(rng.choice(list(root.iter()))))
        case 3:
            child.tag = rng.choice([element.tag for element in root.iter()] + ["x", "Object", "{http://a}object"])
        case 4:
            child.set(rng.choice(["a", "name", "xmlns"]), rng.choice(("", "1", "é")))
        case 5:
            inner = child
            for _ in range(rng.choice([1, 3, 40])):
                inner = ET.SubElement(inner, child.tag)
            inner.text = child.text
        case _:
            leaves = [element for element in root.iter() if not len(element)] or [root]
            rng.choice(leaves).text = str(rng.choice([*TEXTS, *NUMBERS, None]))
