"""A predictor that sees planted rectangles exactly, so that what is made of its detections can be told by hand."""

from __future__ import annotations

import numpy as np

from detseg.predict import Detections, ObjectPredictor
from detseg.structures import ClassTable, InstanceMasks, UInt8Array

CLASSES = ClassTable(("cell", "plate"))


def planted_image(hw: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> UInt8Array:
    """A black image with rectangles (x1, y1, x2, y2), each in a colour of its own and in the red, green and blue
    channel in turn, so that two in a row may overlap."""
    image = np.zeros((*hw, 3), dtype=np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2, number % 3] = 1 + number // 3
    return image


class PlantedPredictor(ObjectPredictor):
    """Finds what of each rectangle is in an image; its class and score follow from its number, and a part scores as the
    whole does.

    Args:
        masks: whether to return masks, too; a mask is its rectangle.
        score: of all; None: each its own.
    """

    def __init__(self, masks: bool = False, score: float | None = None, score_threshold: float = 0.0) -> None:
        super().__init__(CLASSES, (64, 64), None, "planted", "nowhere", score_threshold)
        self.masks, self.score = masks, score
        self.seen: list[tuple[int, ...]] = []

    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        self.seen += [image.shape[:2] for image in images]
        return [self._found(image) for image in images]

    def _found(self, image: UInt8Array) -> Detections:
        boxes, numbers, dense = [], [], []
        for channel in range(3):
            for value in np.unique(image[..., channel][(image[..., channel] > 0) & (image[..., channel] < 100)]):
                mask = image[..., channel] == value
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                numbers.append((int(value) - 1) * 3 + channel)
                dense.append(np.zeros_like(mask))
                dense[-1][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        of = np.array(numbers, dtype=np.int64)
        scores = (0.9 - 0.01 * of if self.score is None else np.full(len(of), self.score)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        masks = InstanceMasks.from_dense(np.array(dense).reshape(-1, *image.shape[:2])) if self.masks else None
        found = Detections(np.array(boxes, dtype=np.float32).reshape(-1, 4), scores, of % 2, CLASSES, masks)[order]
        return found[found.scores >= self.score_threshold]
