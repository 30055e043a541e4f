"""Settings that older versions called something else: an error that names the new one, except in checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from detseg.messages import quoted

RENAMED = {
    "data.augmentation.affine.shift": "data.augmentation.affine.translate",
    "data.augmentation.plain_last_epochs": "data.augmentation.no_mosaic_last_epochs",
    "data.max_bad_share": "data.max_bad_fraction",
    "evaluation.operating_iou": "evaluation.f1_iou",
    "model.backbone.frozen_norm": "model.backbone.freeze_bn",
    "model.backbone.frozen_stages": "model.backbone.freeze",
    "model.head.bins": "model.head.reg_max",
    "model.head.top_candidates": "model.head.topk",
    "model.loss.left_out": "model.loss.excluded_classes",
    "model.proposals": "model.rpn",
    "model.proposals.candidates": "model.rpn.pre_nms_top_n",
    "model.proposals.candidates_train": "model.rpn.pre_nms_top_n_train",
    "model.proposals.positive_share": "model.rpn.positive_fraction",
    "model.proposals.proposals": "model.rpn.post_nms_top_n",
    "model.proposals.proposals_train": "model.rpn.post_nms_top_n_train",
    "model.proposals.samples": "model.rpn.batch_size_per_image",
    "model.regions": "model.roi_heads",
    "model.regions.positive_share": "model.roi_heads.positive_fraction",
    "model.regions.samples": "model.roi_heads.batch_size_per_image",
    "schedule.final_share": "schedule.final_lr_fraction",
    "schedule.initial_share": "schedule.initial_lr_fraction",
    "schedule.rise_share": "schedule.pct_start",
    "trainer.accumulate_batches": "trainer.accumulate_grad_batches",
    "trainer.num_pictures": "trainer.num_previews",
}
"""Old path → new path; both lie in the same section."""

_RENAMED_VALUES: dict[str, dict[Any, Any]] = {
    "data.name": {"folder": "mask_folder"},
    "model.backbone.freeze": {0: "none"},
}
"""Path of today → old value → new value."""

_NEW_KEYS = {(new.rpartition(".")[0], old.rpartition(".")[2]): new.rpartition(".")[2] for old, new in RENAMED.items()}
"""(section by its name of today, old key) → new key, so that a section may have its new name and its keys the old."""
_SECTIONS = {section for section, _ in _NEW_KEYS}


def old_names(data: Mapping[str, Any], path: str = "", section: str = "") -> Iterator[tuple[str, str]]:
    """The path of each setting that has an old name or value, and what to write instead.

    ``path`` is where ``data`` stands, and ``section`` is the same by the names of today.
    """
    for key, value in data.items():
        below, there = _join(section, _NEW_KEYS.get((section, key), key)), _join(path, key)
        if isinstance(value, Mapping) and value and below in _SECTIONS:
            yield from old_names(value, there, below)
        elif below != there:
            yield there, f"is called {below} now"
        elif (new := _new_value(below, value)) is not value:
            yield there, f"{quoted(value)} is called {quoted(new)} now"


def rename_settings(data: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """A copy of an older version's plain settings, of a checkpoint for example, with the names of today."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        new_key = _NEW_KEYS.get((section, key), key)
        if new_key in data:  # both: the old one stays, and is an error when the settings are validated
            new_key = key
        below = _join(section, new_key)
        is_section = isinstance(value, Mapping) and below in _SECTIONS
        result[new_key] = rename_settings(value, below) if is_section else _new_value(below, value)
    return result


def new_key(key: str, known: Collection[str]) -> str | None:
    """The key of today for an old one of a section that has the ``known`` keys."""
    return next((new for (_, old), new in _NEW_KEYS.items() if old == key and new in known), None)


def _join(section: str, key: str) -> str:
    return f"{section}.{key}" if section else str(key)


def _new_value(path: str, value: Any) -> Any:
    return _RENAMED_VALUES.get(path, {}).get(value, value) if type(value) in (str, int) else value
