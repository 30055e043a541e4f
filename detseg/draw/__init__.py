"""Detections and label maps as pictures.

Lines and letters grow with the picture, and small images are enlarged; pictures are (H, W, 3) uint8 RGB arrays, and
what is passed in is never changed.
"""

from __future__ import annotations

from detseg.draw.boxes import draw_boxes
from detseg.draw.classes import Color, class_color, class_colors, class_legend
from detseg.draw.images import can_be_written, contact_sheet, draw_legend, write_image, write_index_png
from detseg.draw.masks import draw_semantic, paint_instances

__all__ = [
    "Color",
    "can_be_written",
    "class_color",
    "class_colors",
    "class_legend",
    "contact_sheet",
    "draw_boxes",
    "draw_legend",
    "draw_semantic",
    "paint_instances",
    "write_image",
    "write_index_png",
]
