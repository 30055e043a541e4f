"""The class of every pixel of one image.

Letters for dimensions: C classes, H and W pixels of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.structures.arrays import UInt8Array
from detseg.structures.samples import MAX_CLASSES, ClassTable


@dataclass(frozen=True, eq=False)
class SegmentationMap:
    """The class of every pixel of one image, at the image's own size.

    Attributes:
        labels: (H, W) uint8; a label is a position in ``classes.names``.
        classes: the table that names the labels.
        probabilities: (C, H, W) float32 in [0, 1], summing to 1 over the classes; None unless they were requested.
    """

    labels: UInt8Array
    classes: ClassTable
    probabilities: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8:
            raise ValueError(
                f"labels: expected uint8 of shape (H, W), got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if not 0 < len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"classes: expected 1 to {MAX_CLASSES}, got {len(self.classes)}")
        if self.labels.size and int(self.labels.max()) >= len(self.classes):
            raise ValueError(f"labels: expected below {len(self.classes)}, got {int(self.labels.max())}")
        expected = (len(self.classes), *self.labels.shape)
        if self.probabilities is not None and self.probabilities.shape != expected:
            raise ValueError(f"probabilities: expected shape {expected}, got {self.probabilities.shape}")

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.classes.names

    @property
    def palette(self) -> UInt8Array:
        """(C, 3) uint8 RGB: the colour of each label in drawings and PNG files; that of ``background`` is black."""
        from detseg.draw import class_colors

        return np.array(class_colors(self.classes), dtype=np.uint8)

    @property
    def areas(self) -> dict[str, int]:
        """The number of pixels of each class, in the order of the labels."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """(H, W) bool: the pixels of one class.

        Raises:
            ValueError: there is no such class.
        """
        if name not in self.names:
            raise ValueError(f"there is no class {name!r}; the classes are {', '.join(self.names)}")
        mask: npt.NDArray[np.bool_] = self.labels == self.names.index(name)
        return mask

    def draw(self, image: UInt8Array, opacity: float = 0.5) -> UInt8Array:
        """A copy of ``image`` ((H, W, 3) uint8 RGB, of this map's size) under the colours of the classes; a class named
        ``background`` is not coloured."""
        from detseg.draw import draw_semantic

        return draw_semantic(image, self.labels, opacity, self.classes.background)

    def save_png(self, path: Path | str) -> None:
        """Write the labels as an indexed PNG with the colours of ``palette``.

        Raises:
            DataError: the file could not be written.
        """
        from detseg.draw import write_index_png

        write_index_png(Path(path), self.labels, self.palette)
