"""The last step of a prediction: what the network says, in pixels of its input → a result in pixels of the image.

Letters for dimensions: C classes, h and w pixels of the network input.
"""

from __future__ import annotations

from torch import Tensor

from detseg.ops.letterbox import Letterbox, label_map, logits_at_original_size
from detseg.predict.results import Detections, SegmentationMap
from detseg.structures import ClassTable, DetectorOutput


def postprocess_detections(
    found: DetectorOutput, letterbox: Letterbox, classes: ClassTable, score_threshold: float
) -> Detections:
    """The detections of an image.

    Args:
        found: what the detector returned, in pixels of its input.
        letterbox: the place of the image in that input.
        classes: names of the labels.
        score_threshold: detections below it are left out; what lies in the padding always is.
    """
    there = found[found.scores >= score_threshold].to_original(letterbox).cpu()
    return Detections(there.boxes.numpy(), there.scores.numpy(), there.labels.numpy(), classes, there.masks)


def postprocess_logits(
    logits: Tensor, letterbox: Letterbox, classes: ClassTable, probabilities: bool = False
) -> SegmentationMap:
    """The class of every pixel of an image.

    Args:
        logits: (C, h, w) float32, in pixels of the network input.
        letterbox: the place of the image in that input.
        classes: names of the C labels.
        probabilities: whether the result has them.
    """
    labels = label_map(logits, letterbox).cpu().numpy()
    chances = logits_at_original_size(logits, letterbox).softmax(dim=0).cpu().numpy() if probabilities else None
    return SegmentationMap(labels, classes, chances)
