"""Changes of JSON, YAML and XML as trees: the result still parses, mostly, but says something else.

A JSON object is a list of pairs here, since files can hold a key twice.
"""

from __future__ import annotations

import copy
import json
import random
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import yaml


class Pairs(list[tuple[str, Any]]):
    """A JSON object."""


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
