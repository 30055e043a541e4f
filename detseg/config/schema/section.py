"""What the sections of the schema are made of: base class, number types with ranges, kinds; names of older versions."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from detseg.messages import quoted

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Channels = Annotated[int, Field(ge=1, le=8192)]
Factor = Annotated[float, Field(gt=0, le=8)]
"""Of depth, width or size. The bounds keep a foreign checkpoint's number from taking all memory."""
MAX_SIDE = 13_376
InputSide = Annotated[int, Field(ge=32, le=MAX_SIDE)]
"""Of the network input, pixels. The bound is the largest multiple of 32 whose square an image may have as pixels."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of what is kept for each image at a time."""


class Section(BaseModel):
    """Base of every section: frozen; unknown keys and infinite numbers are errors; attribute docstrings are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def sections(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes that a field may hold; several where ``name`` tells them apart, none for a plain value."""
    return tuple(part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Section))


def kind_name(section: type[Section]) -> str:
    """The ``name`` that selects a section from its union."""
    return str(get_args(section.model_fields["name"].annotation)[0])


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]


NEW_KEYS = {
    "data": {"max_bad_share": "max_bad_fraction"},
    "data.augmentation": {"plain_last_epochs": "no_mosaic_last_epochs"},
    "data.augmentation.affine": {"shift": "translate"},
    "evaluation": {"operating_iou": "f1_iou"},
    "model": {"proposals": "rpn", "regions": "roi_heads"},
    "model.backbone": {"frozen_norm": "freeze_bn", "frozen_stages": "freeze"},
    "model.head": {"bins": "reg_max", "top_candidates": "topk"},
    "model.loss": {"left_out": "excluded_classes"},
    "model.roi_heads": {"positive_share": "positive_fraction", "samples": "batch_size_per_image"},
    "model.rpn": {
        "candidates": "pre_nms_top_n",
        "candidates_train": "pre_nms_top_n_train",
        "positive_share": "positive_fraction",
        "proposals": "post_nms_top_n",
        "proposals_train": "post_nms_top_n_train",
        "samples": "batch_size_per_image",
    },
    "schedule": {"final_share": "final_lr_fraction", "initial_share": "initial_lr_fraction", "rise_share": "pct_start"},
    "trainer": {"accumulate_batches": "accumulate_grad_batches", "num_pictures": "num_previews"},
}
"""Section by its name of today → old key → new key, so that a section may have its new name and its keys the old."""

_NEW_VALUES: dict[str, dict[Any, Any]] = {"data.name": {"folder": "mask_folder"}, "model.backbone.freeze": {0: "none"}}
"""Path of today → old value → new value."""


def rename_settings(
    data: Mapping[str, Any], section: str = "", path: str = ""
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Plain settings of any version with the names of today, and what was renamed in them.

    Args:
        data: the settings of a section.
        section: its path by the names of today; empty: the top.
        path: its path as ``data`` has it.

    Returns:
        The settings, where an old name beside its new one stays, so that it is an error when they are validated; and
        the path of each old name or value, with a message that says the new one.
    """
    settings: dict[str, Any] = {}
    renamed: list[tuple[str, str]] = []
    for key, value in data.items():
        new_key = NEW_KEYS.get(section, {}).get(key, key)
        here, now = (f"{above}.{name}" if above else str(name) for above, name in ((path, key), (section, new_key)))
        new_value = _NEW_VALUES.get(now, {}).get(value, value) if type(value) in (str, int) else value
        if isinstance(value, Mapping) and value and now in NEW_KEYS:
            new_value, below = rename_settings(value, now, here)
            renamed += below
        elif now != here:
            renamed.append((here, f"is called {now} now"))
        elif new_value is not value:
            renamed.append((here, f"{quoted(value)} is called {quoted(new_value)} now"))
        settings[key if new_key in data else new_key] = new_value
    return settings, renamed
