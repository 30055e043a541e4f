"""What travels in the file of an exported model, as JSON under the name ``detseg`` of its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from detseg.data.images.values import ValueRange
from detseg.errors import CheckpointError
from detseg.messages import one_line
from detseg.structures import ClassTable

KEY = "detseg"
FORMAT = 1
Task = Literal["detection", "instance", "semantic"]


@dataclass(frozen=True)
class Description:
    """What a predictor needs besides the network.

    Attributes:
        task: ``detection`` and ``instance`` find boxes, the latter with masks; ``semantic`` labels pixels.
        model: name of the kind of model, such as ``yolo``.
        classes: names and source values of the labels.
        input_hw: height and width of the network input, pixels.
        batch: the number of images that it takes at a time; None: any.
        any_size: whether the network takes all multiples of ``stride`` instead of ``input_hw`` alone; images of other
            sizes are padded.
        stride: input pixels per cell of the coarsest map.
        padding: of each channel, what images are padded by, in [0, 1].
        nms: whether NMS is inside; else it is computed afterwards. False where there is none.
        score_threshold, nms_iou, max_detections: of the model's detections.
        mask_threshold: probability from which a pixel belongs to an object.
        value_range: how images of more than 8 bits are read.
        precision: ``fp32``, ``fp16`` or ``int8``.
        origin: versions, the checkpoint and its epoch, and fingerprints of the data.
    """

    task: Task
    model: str
    classes: ClassTable
    input_hw: tuple[int, int]
    batch: int | None
    any_size: bool
    stride: int
    padding: tuple[float, float, float] = (0.0, 0.0, 0.0)
    nms: bool = False
    score_threshold: float = 0.0
    nms_iou: float = 0.0
    max_detections: int = 0
    mask_threshold: float = 0.5
    value_range: ValueRange = None
    precision: str = "fp32"
    origin: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """For the metadata of a file."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> Description:
        """Read what ``to_json`` wrote. CheckpointError: there is none, or it is of another version, or damaged."""
        if KEY not in metadata:
            raise CheckpointError(f"{where}: not an export of detseg: its metadata has no {KEY!r}; see detseg export")
        try:
            content = json.loads(metadata[KEY])
            if (found := content.pop("format")) != FORMAT:
                raise CheckpointError(f"{where}: export format {found!r}, this version reads format {FORMAT}")
            table = content.pop("classes")
            classes = ClassTable(tuple(table["names"]), tuple(table["source_ids"]))
            height, width = content.pop("input_hw")
            content["padding"] = tuple(content["padding"])
            limits = content.pop("value_range")
            value_range: Any = tuple(limits) if isinstance(limits, list) else limits
            return cls(**content, classes=classes, input_hw=(int(height), int(width)), value_range=value_range)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{where}: what it says of the model is damaged ({one_line(error)})") from error
