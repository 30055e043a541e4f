"""Detections and label maps as pictures.

Lines and letters grow with the picture, and small images are enlarged; pictures are (H, W, 3) uint8 RGB arrays, and
what is passed in is never changed.
"""

from __future__ import annotations

from detseg.draw.boxes import draw_boxes, draw_detection_errors
from detseg.draw.classes import Color, class_color, class_colors, class_legend
from detseg.draw.images import can_be_written, contact_sheet, draw_legend, index_png, write_image, write_index_png
from detseg.draw.masks import draw_semantic, draw_semantic_errors, paint_instances

__all__ = [
    "Color",
    "can_be_written",
    "class_color",
    "class_colors",
    "class_legend",
    "contact_sheet",
    "draw_boxes",
    "draw_detection_errors",
    "draw_legend",
    "draw_semantic",
    "draw_semantic_errors",
    "index_png",
    "paint_instances",
    "write_image",
    "write_index_png",
]
