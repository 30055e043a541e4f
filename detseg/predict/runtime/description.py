"""What travels in the file of an exported model, as JSON under the name ``detseg`` of its metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from detseg.data.images.values import ValueRange
from detseg.errors import CheckpointError
from detseg.messages import one_line
from detseg.structures import ClassTable

KEY = "detseg"
FORMAT = 1
Task = Literal["detection", "instance", "semantic"]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Description:
    """What a predictor needs besides the network.

    Attributes:
        task: ``detection`` and ``instance`` find boxes, the latter with masks; ``semantic`` labels pixels.
        model: name of the kind of model, such as ``yolo``.
        classes: names and source values of the labels.
        input_hw: height and width of the network input, pixels.
        batch: the number of images that it takes at a time; None: any.
        any_size: whether the network takes all multiples of ``stride`` instead of ``input_hw`` alone; images that are
            to be labelled at other sizes are padded.
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
    input_hw: tuple[PositiveInt, PositiveInt]
    batch: PositiveInt | None
    any_size: bool
    stride: PositiveInt
    padding: tuple[Fraction, Fraction, Fraction] = (0.0, 0.0, 0.0)
    nms: bool = False
    score_threshold: Fraction = 0.0
    nms_iou: Fraction = 0.0
    max_detections: NonNegativeInt = 0
    mask_threshold: Fraction = 0.5
    value_range: ValueRange = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    origin: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        """ValueError: numbers that no model has."""
        if self.task != "semantic" and self.max_detections < 1:
            raise ValueError(f"max_detections: expected 1 or more, got {self.max_detections}")
        bounds = self.value_range
        if isinstance(bounds, tuple) and not -math.inf < bounds[0] < bounds[1] < math.inf:
            raise ValueError(f"value_range: expected [low, high] with low < high, got {list(bounds)}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what the network gives, in its order; a batch of detections has ``image_indices``, too."""
        if self.task == "semantic":
            return ("logits",)
        labels = ("labels",) if self.nms else ()
        return ("boxes", "scores", *labels, *(("masks", "regions") if self.task == "instance" else ()))

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
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")  # of several: no place
            raise CheckpointError(f"{where}: what it says of the model is damaged ({what})") from error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{where}: what it says of the model is damaged ({one_line(error)})") from error
