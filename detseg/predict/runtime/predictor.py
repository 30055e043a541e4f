"""Predictors over exported models, without torch: the same results as those of the checkpoint, but for rounding.

Letters: B images, C classes, P candidates of an image, N detections, M cells of a mask, h and w pixels of the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike

from detseg.errors import CheckpointError, ConfigError
from detseg.messages import one_line
from detseg.ops.letterbox import Letterbox
from detseg.ops.masks import paste_grid
from detseg.predict.interface import (
    ImagePredictor,
    MapPredictor,
    ObjectPredictor,
    check_finite,
    preprocess,
    refuse_score,
)
from detseg.predict.results import Detections, SegmentationMap
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.engines import Engine, Outputs, open_engine
from detseg.predict.tiles.maps import softmax
from detseg.structures import SCORE_THRESHOLD, Float32Array, FloatArray, InstanceMasks, IntArray, UInt8Array


def load_exported(
    path: Path, device: str = "auto", score_threshold: float | None = None, threads: int | None = None
) -> ImagePredictor[Detections] | ImagePredictor[SegmentationMap]:
    """The predictor of an exported file; arguments and errors as of ``detseg.load_predictor`` and ``open_engine``."""
    engine = open_engine(path, device, threads)
    description = Description.from_metadata(engine.metadata, str(path))
    _check(engine, description, path)
    if description.task == "semantic":
        refuse_score(path, description.model, score_threshold)
    return predictor_of(engine, description, SCORE_THRESHOLD if score_threshold is None else score_threshold)


def predictor_of(
    engine: Engine, description: Description, score_threshold: float
) -> ExportedPredictor | ExportedSegmentationPredictor:
    """The predictor of a network, by its task; label maps have no threshold."""
    if description.task == "semantic":
        return ExportedSegmentationPredictor(engine, description)
    return ExportedPredictor(engine, description, score_threshold)


def _check(engine: Engine, description: Description, path: Path) -> None:
    """CheckpointError: the network does not compute what the file says."""
    step = description.stride if description.any_size else 1
    own_hw = tuple(-(-side // step) * step for side in description.input_hw)
    small = ((step, 2 * step), (2 * step, step)) if description.any_size else ()  # which take no time
    for height, width in (*small, own_hw):
        try:
            outputs = engine(np.zeros((description.batch or 1, 3, height, width), dtype=np.float32))
        except Exception as error:  # what engines raise is not a closed list
            what = f"its network does not take images of {height} x {width}, as it says"
            raise CheckpointError(f"{path}: damaged: {what} ({one_line(error)})") from error
    wanted, number = set(description.outputs), len(description.classes)
    more = {"image_indices"} if description.nms else set()
    by_class = (outputs[name].shape for name in ("logits", "scores") if name in wanted & outputs.keys())
    numbers = {shape[1] for shape in by_class if len(shape) > 1}
    if not wanted <= outputs.keys() <= wanted | more or numbers - {number}:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in outputs.items())
        expected = f"expected the outputs {', '.join(description.outputs)} of {number} classes, as it says"
        raise CheckpointError(f"{path}: damaged: {expected}, its network has {shapes}")


class ExportedPredictor(ObjectPredictor):
    """Finds objects by an exported network.

    Args:
        engine: the network.
        description: what its file says of it.
        score_threshold: detections below it are left out; 0 keeps all that evaluation counts.
    """

    def __init__(self, engine: Engine, description: Description, score_threshold: float = SCORE_THRESHOLD) -> None:
        where = (description.value_range, engine.name, engine.place)
        super().__init__(description.classes, description.input_hw, *where, score_threshold)
        self.engine, self.description = engine, description

    @property
    def input_step(self) -> int | None:
        """The coarsest stride of all detectors, of a network that takes any size."""
        return 32 if self.description.any_size else None

    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        stacked, letterboxes = preprocess(images, self.input_hw)
        threshold = max(self.score_threshold, self.description.score_threshold)
        found: list[Detections] = []
        for part in _parts(len(images), self.description.batch):
            outputs = self.engine(as_floats(stacked[part]), threshold)
            for index, letterbox in enumerate(letterboxes[part]):
                own = _of_image(outputs, index, self.description, threshold)
                found.append(self._detections(own, letterbox, threshold))
        return found

    def _detections(self, found: Outputs, letterbox: Letterbox, threshold: float) -> Detections:
        """The outputs of one image → its detections, best first, in pixels of the image."""
        order = np.argsort(-found["scores"], kind="stable")[: self.description.max_detections]
        order = order[found["scores"][order] >= threshold]
        boxes = _to_original(found["boxes"][order], letterbox)
        limit = np.tile(np.array(letterbox.original_hw[::-1], dtype=np.float32), 2)
        boxes = np.minimum(boxes.clip(min=0), limit)
        there = ~(boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        order, boxes, masks = order[there], boxes[there], None
        if "masks" in found:
            regions = _to_original(found["regions"][order], letterbox).tolist()
            hw, least = letterbox.original_hw, self.description.mask_threshold
            grids = zip(found["masks"][order], regions, strict=True)
            masks = InstanceMasks(hw, tuple(paste_grid(grid, region, hw, least) for grid, region in grids))
        labels = found["labels"][order].astype(np.int64)
        return Detections(boxes, found["scores"][order], labels, self.classes, masks)


class ExportedSegmentationPredictor(MapPredictor):
    """Labels the pixels of images by an exported network.

    Args:
        engine: the network.
        description: what its file says of it.
    """

    def __init__(self, engine: Engine, description: Description) -> None:
        where = (description.value_range, engine.name, engine.place)
        super().__init__(description.classes, description.input_hw, *where)
        self.engine, self.description = engine, description

    @property
    def stride(self) -> int:
        """That of the model."""
        return self.description.stride

    def logits(self, images: UInt8Array) -> Float32Array:
        """(B, h, w, 3) uint8 → (B, C, h, w) float32. DetsegError: some are NaN or infinite. ConfigError: the network
        takes another size alone."""
        hw = images.shape[1], images.shape[2]
        if not self.description.any_size and hw != self.description.input_hw:
            height, width = self.description.input_hw
            raise ConfigError(
                f"tile: this export takes images of {height} x {width} alone, got {hw[0]} x {hw[1]}; export it "
                f"with --any-size, or predict with the checkpoint"
            )
        parts = _parts(len(images), self.description.batch)
        logits = np.concatenate([self.engine(self._padded(as_floats(images[part])))["logits"] for part in parts])
        logits = logits[:, :, : hw[0], : hw[1]]
        check_finite(float(logits.min()), float(logits.max()))
        return logits

    def _padded(self, images: Float32Array) -> Float32Array:
        """Padded at the right and at the bottom, as the model does it itself."""
        if not self.description.any_size:
            return images
        height, width = (-(-side // self.stride) * self.stride for side in images.shape[2:])
        padded = np.empty((*images.shape[:2], height, width), dtype=np.float32)
        padded[:] = np.array(self.description.padding, dtype=np.float32)[:, None, None]
        padded[:, :, : images.shape[2], : images.shape[3]] = images
        return padded

    @property
    def input_step(self) -> int | None:
        """The stride, of a network that takes any size."""
        return self.stride if self.description.any_size else None

    def _whole(self, images: list[UInt8Array], probabilities: bool) -> list[SegmentationMap]:
        inputs, letterboxes = preprocess(images, self.input_hw)
        found = []
        for logits, letterbox in zip(self.logits(inputs), letterboxes, strict=True):
            height, width = letterbox.original_hw
            inside = logits[:, *letterbox.inside]
            planes = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in inside)
            if probabilities:
                stacked = np.stack(list(planes))
                labels = stacked.argmax(axis=0).astype(np.uint8)
                found.append(SegmentationMap(labels, self.classes, softmax(stacked)))
            else:
                found.append(SegmentationMap(_argmax(planes), self.classes))
        return found


def as_floats(images: UInt8Array) -> Float32Array:
    """(B, h, w, 3) uint8 → (B, 3, h, w) float32 in [0, 1], which the networks take."""
    floats: Float32Array = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    floats /= 255
    return floats


def _argmax(planes: Iterator[MatLike]) -> UInt8Array:
    """C times (H, W) → the position of the largest, the first of equals; two planes are in memory, whatever C is."""
    best = next(planes)
    labels = np.zeros(best.shape, dtype=np.uint8)
    for label, plane in enumerate(planes, start=1):
        labels[plane > best] = label
        np.maximum(best, plane, out=best)
    return labels


def class_nms(boxes: FloatArray, scores: Float32Array | FloatArray, nms_iou: float) -> IntArray:
    """(N,) positions, best first, of the boxes of one class that overlap no better one by more than ``nms_iou``;
    (N, 4) float64 xyxy."""
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        inside = sides.clip(min=0).prod(axis=1)
        order = rest[inside <= nms_iou * (areas[best] + areas[rest] - inside)]
    return np.array(kept, dtype=np.int64)


def _of_image(outputs: Outputs, index: int, description: Description, threshold: float) -> Outputs:
    """The detections of one image of a batch."""
    if "labels" not in outputs:  # NMS is left to us
        return _suppressed(outputs["boxes"][index], outputs["scores"][index], description.nms_iou, threshold)
    if "image_indices" not in outputs:
        return outputs
    own = outputs["image_indices"] == index
    return {name: values[own] for name, values in outputs.items() if name != "image_indices"}


def _suppressed(boxes: Float32Array, scores: Float32Array, nms_iou: float, threshold: float) -> Outputs:
    """(P, 4) boxes and (C, P) scores of an image → its detections from the threshold on."""
    labels, at = np.nonzero(scores >= threshold)  # class after class
    kept = [np.zeros(0, dtype=np.int64)]
    for own in np.split(np.arange(len(at)), np.flatnonzero(np.diff(labels)) + 1):
        kept.append(own[class_nms(boxes[at[own]].astype(np.float64), scores[labels[own], at[own]], nms_iou)])
    rows = np.concatenate(kept)
    return {"boxes": boxes[at[rows]], "scores": scores[labels[rows], at[rows]], "labels": labels[rows]}


def _to_original(regions: Float32Array, letterbox: Letterbox) -> Float32Array:
    """(N, 4) float32 xyxy in input pixels → in pixels of the image, not clipped."""
    shift: Float32Array = np.array([letterbox.left, letterbox.top] * 2, dtype=np.float32)
    scale: Float32Array = np.array(letterbox.scale_xy * 2, dtype=np.float32)
    original: Float32Array = np.divide(regions - shift, scale, dtype=np.float32)
    return original


def _parts(number: int, batch: int | None) -> Iterator[slice]:
    step = number if batch is None else batch
    return (slice(start, start + step) for start in range(0, number, max(step, 1)))
