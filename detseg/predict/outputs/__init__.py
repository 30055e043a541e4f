"""What prediction over files writes: the journal of results, and from it a file or files in each format."""

from __future__ import annotations

from detseg.predict.outputs.detections import DetectionOutput
from detseg.predict.outputs.journal import JOURNAL, Journal, Share
from detseg.predict.outputs.maps import LabelOutput
from detseg.predict.outputs.output import ExistingFiles, ImageFile, Output

__all__ = ["JOURNAL", "DetectionOutput", "ExistingFiles", "ImageFile", "Journal", "LabelOutput", "Output", "Share"]
