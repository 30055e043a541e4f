"""What the sections of the schema are made of: the base class and the number types with their ranges."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Channels = Annotated[int, Field(ge=1, le=8192)]
Multiplier = Annotated[float, Field(gt=0, le=8)]
"""Of depth or width.  It and channels have bounds so that a number that is wrong by orders of magnitude, be it in a
foreign checkpoint, is an error and does not take all memory."""
MAX_SIDE = 13_376
InputSide = Annotated[int, Field(ge=32, le=MAX_SIDE)]
"""Of the network input, pixels.  The largest multiple of 32 whose square is no more pixels than an image may have."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of what is kept for each image at once."""


class Section(BaseModel):
    """Base of every section: frozen, unknown keys and infinite numbers refused, attribute docstrings kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def changed(section: Section, *keys: str) -> list[str]:
    """Those of some settings that are not at their default."""
    fields = type(section).model_fields
    return [key for key in keys if getattr(section, key) != fields[key].default]


def sections(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes that a field may hold; several where ``name`` tells them apart, none for a plain value."""
    parts = [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Section)]
    return tuple(parts)


def kind_name(section: type[Section]) -> str:
    """The ``name`` by which a section is picked from its union."""
    return str(get_args(section.model_fields["name"].annotation)[0])


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]
