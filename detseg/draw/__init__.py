"""Detections and label maps as pictures.

What is drawn grows with the picture; pictures are (H, W, 3) uint8 RGB arrays, and what is passed in is never changed.
"""

from __future__ import annotations

from detseg.draw.boxes import draw_boxes, draw_detections
from detseg.draw.colors import Color, class_color, class_colors
from detseg.draw.images import contact_sheet
from detseg.draw.semantic import draw_legend, draw_semantic, write_index_png
from detseg.draw.writing import can_be_written, write_picture

__all__ = [
    "Color",
    "can_be_written",
    "class_color",
    "class_colors",
    "contact_sheet",
    "draw_boxes",
    "draw_detections",
    "draw_legend",
    "draw_semantic",
    "write_index_png",
    "write_picture",
]
