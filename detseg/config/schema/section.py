"""What the sections of the schema are made of: the base class, number types with ranges, and the kinds of a section."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from detseg.config.renamed import new_key
from detseg.errors import ConfigError

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Channels = Annotated[int, Field(ge=1, le=8192)]
Factor = Annotated[float, Field(gt=0, le=8)]
"""Of depth, width or size. The bounds keep a foreign checkpoint's number from taking all memory."""
MAX_SIDE = 13_376
InputSide = Annotated[int, Field(ge=32, le=MAX_SIDE)]
"""Of the network input, pixels. The bound is the largest multiple of 32 whose square an image may have as pixels."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of what is kept for each image at a time."""


class Section(BaseModel):
    """Base of every section: frozen; unknown keys and infinite numbers are errors; attribute docstrings are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """Names the new key of a setting that is given under its old one."""
        for key in settings.keys() - cls.model_fields.keys():
            if new := new_key(key, cls.model_fields):
                raise ConfigError(f"{cls.__name__}: {key} is called {new} now")
        return super().__new__(cls)


def sections(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes that a field may hold; several where ``name`` tells them apart, none for a plain value."""
    return tuple(part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Section))


def kind_name(section: type[Section]) -> str:
    """The ``name`` that selects a section from its union."""
    return str(get_args(section.model_fields["name"].annotation)[0])


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]
