"""Settings that older versions called something else: an error that names the new one, except in checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from detseg.messages import quoted

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
    "schedule": {
        "final_share": "final_lr_fraction",
        "initial_share": "initial_lr_fraction",
        "rise_share": "pct_start",
    },
    "trainer": {"accumulate_batches": "accumulate_grad_batches", "num_pictures": "num_previews"},
}
"""Section by its name of today → old key → new key, so that a section may have its new name and its keys the old."""

_NEW_VALUES: dict[str, dict[Any, Any]] = {
    "data.name": {"folder": "mask_folder"},
    "model.backbone.freeze": {0: "none"},
}
"""Path of today → old value → new value."""


def old_names(data: Mapping[str, Any], path: str = "", section: str = "") -> Iterator[tuple[str, str]]:
    """The path of each setting that has an old name or value, and what to write instead.

    ``path`` is where ``data`` stands, and ``section`` is the same by the names of today.
    """
    for key, value in data.items():
        there, below = _join(path, key), _join(section, NEW_KEYS.get(section, {}).get(key, key))
        if isinstance(value, Mapping) and value and below in NEW_KEYS:
            yield from old_names(value, there, below)
        elif below != there:
            yield there, f"is called {below} now"
        elif (new := _new_value(below, value)) is not value:
            yield there, f"{quoted(value)} is called {quoted(new)} now"


def rename_settings(data: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """A copy of an older version's plain settings, of a checkpoint for example, with the names of today."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        new_key = NEW_KEYS.get(section, {}).get(key, key)
        if new_key in data:  # both: the old one stays, and is an error when the settings are validated
            new_key = key
        below = _join(section, new_key)
        is_section = isinstance(value, Mapping) and below in NEW_KEYS
        result[new_key] = rename_settings(value, below) if is_section else _new_value(below, value)
    return result


def new_key(key: str, known: Collection[str]) -> str | None:
    """The key of today for an old one of a section that has the ``known`` keys."""
    return next((keys[key] for keys in NEW_KEYS.values() if keys.get(key) in known), None)


def _join(section: str, key: str) -> str:
    return f"{section}.{key}" if section else str(key)


def _new_value(path: str, value: Any) -> Any:
    return _NEW_VALUES.get(path, {}).get(value, value) if type(value) in (str, int) else value
