"""Dataclasses of arrays are compared by identity: arrays have no truth value and no hash, so all else would raise."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import detseg.data
import detseg.metrics
import detseg.structures


def dataclasses() -> Iterator[type[Any]]:
    for package in (detseg.data, detseg.metrics, detseg.structures):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.name:
                    yield value


def test_dataclasses_of_arrays_have_no_equality_of_their_own() -> None:
    found = [kind for kind in dataclasses() if any(re.search(r"Array\b|Tensor\b", str(f.type)) for f in fields(kind))]
    assert {kind.__name__ for kind in found} >= {"PackedAnnotations", "Segmentations", "Sample", "Batch", "Detections"}
    assert [kind for kind in found if kind.__eq__ is not object.__eq__ or kind.__hash__ is not object.__hash__] == []
