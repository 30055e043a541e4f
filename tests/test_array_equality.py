"""Records of arrays are compared by identity: arrays have no truth value and no hash, so all else would raise."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import detseg.data
import detseg.metrics
import detseg.models
import detseg.predict
import detseg.structures


def records() -> Iterator[type[Any]]:
    """The dataclasses and named tuples of the packages that have records of arrays."""
    for package in (detseg.data, detseg.metrics, detseg.models, detseg.predict, detseg.structures):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and (is_dataclass(value) or hasattr(value, "_fields")):
                    yield value


def test_records_of_arrays_have_no_equality_of_their_own() -> None:
    array = re.compile(r"Array\b|Tensor\b|Matrix\b")
    found = {kind for kind in records() if any(array.search(str(hint)) for hint in kind.__annotations__.values())}
    some = "PackedAnnotations Sample Batch Detections DetectorOutput AugmentItem BatchObjects AnchorOutputs"
    assert {kind.__name__ for kind in found} >= set(some.split())
    assert [kind for kind in found if kind.__eq__ is not object.__eq__ or kind.__hash__ is not object.__hash__] == []
