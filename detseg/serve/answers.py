"""From results to what a client gets: JSON, or a drawn picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from detseg.draw import index_png
from detseg.predict import Detections, SegmentationMap
from detseg.serve.batching import Predicted
from detseg.serve.settings import ServiceError
from detseg.structures import UInt8Array

Found = Detections | SegmentationMap
_MOST_OF_JPEG = 65_500  # pixels of a side, of libjpeg


def choose(found: Found, score: float, classes: Sequence[str] | None) -> Found:
    """The detections that score enough and are of the classes; a map stays whole."""
    if isinstance(found, SegmentationMap):
        return found
    kept = found.scores >= score
    if classes is not None:
        labels = [label for label, name in enumerate(found.classes.names) if name in classes]
        kept &= np.isin(found.labels, labels)
    return found[kept]


def to_json(found: Found, classes: Sequence[str] | None, masks: bool) -> dict[str, Any]:
    """The part of an answer that says what was found.

    Args:
        found: of an image.
        classes: of a map: those whose pixels are counted; None: all.
        masks: of detections: whether their masks are wanted, as COCO's compressed run lengths.

    Returns:
        ``image`` (width, height: pixels) and ``objects`` (box: xyxy in pixels; score; label; name; mask), best first;
        or ``labels``, an indexed PNG in base64, and ``pixels`` by class.
    """
    assert found.image is not None  # a predictor's results know it
    height, width = found.image.shape[:2]
    size = {"image": {"width": width, "height": height}}
    if isinstance(found, SegmentationMap):
        png = base64.b64encode(index_png(found.labels, found.palette)).decode()
        pixels = {name: area for name, area in found.areas.items() if classes is None or name in classes}
        return size | {"labels": png, "pixels": pixels}
    columns = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.names, strict=True)
    keys = ("box", "score", "label", "name")
    objects: list[dict[str, Any]] = [dict(zip(keys, row, strict=True)) for row in columns]
    if masks and found.masks is not None:
        for one, counts in zip(objects, found.masks.counts, strict=True):
            one["mask"] = {"size": [height, width], "counts": counts.decode("ascii")}
    return size | {"objects": objects}


def to_picture(image: UInt8Array) -> bytes:
    """An (H, W, 3) uint8 RGB image as a JPEG; 413: it is too large for one."""
    height, width = image.shape[:2]
    if max(height, width) > _MOST_OF_JPEG:
        most = f"a JPEG, with which format=image and format=decoded answer, has at most {_MOST_OF_JPEG} on a side"
        raise ServiceError(413, f"the picture has {width} x {height} pixels; {most}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def timing(predicted: Predicted, decoding: float, total: float) -> dict[str, float]:
    """Milliseconds, and how many images were predicted together."""
    seconds = {"decode": decoding, "wait": predicted.waited, "predict": predicted.took, "total": total}
    return {f"{name}_ms": round(1000 * value, 2) for name, value in seconds.items()} | {
        "batch_size": predicted.batch_size
    }
