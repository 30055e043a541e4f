"""What the loaders ask of a data set: classes, a length, and samples by position."""

from __future__ import annotations

from typing import Protocol

from detseg.structures import ClassTable, ImageAnnotations, Sample


class SampleSource(Protocol):
    """Anything that yields a `Sample` for each position; every reader of detseg is one.

    A source of large images may have a method ``reduced(index, input_hw) -> Sample``, too, which training prefers: its
    image is as large as a letterbox to that height and width needs it, or larger, and its boxes are in pixels of it.
    """

    @property
    def classes(self) -> ClassTable:
        """The classes of the data set."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class EvalSource(SampleSource, Protocol):
    """A source that also tells what detections are scored against."""

    def image_id(self, index: int, /) -> int:
        """The id of an image in evaluation files."""
        ...

    def annotations(self, index: int, /) -> ImageAnnotations:
        """The ground truth of an image in original pixels, as its file states it."""
        ...
