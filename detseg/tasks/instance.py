"""Instance segmentation: detections with masks."""

from __future__ import annotations

from detseg.tasks.detection import Detection


class InstanceSegmentation(Detection):
    """Of models that keep the ``Detector`` contract and whose detections have masks; they learn from masks."""

    criterion = "mask_AP"
    shown = ("mask_AP50", "mask_AP")
    finds_masks = True
