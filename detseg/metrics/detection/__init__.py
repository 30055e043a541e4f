"""Metrics of boxes and instance masks: COCO AP, VOC AP, precision and recall."""
