"""The formats that detections are written in; apart from what writes them, so that a wrong name is reported before
torch loads."""

from __future__ import annotations

EXPORT_FORMATS = ("coco", "voc", "yolo")
"""Names of the formats, the first by default."""

NAMED_FORMATS = f"{', '.join(EXPORT_FORMATS[:-1])} or {EXPORT_FORMATS[-1]}"
"""All of them, for messages."""
