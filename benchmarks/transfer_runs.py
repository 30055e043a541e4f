"""The trainings of ``benchmarks.transfer``, most important first, and the tables that their results stand in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.comparison import DATA

BACKBONE = "tf_efficientnet_lite0", DATA / "weights" / "tf_efficientnet_lite0.safetensors"
BATCH = 8
FOLDER = "FOLDER"
"""Stands in a setting for the folder of all runs, which begin with the weights of others or have annotations there."""

WAYS = {
    "random": "random weights",
    "frozen": "frozen",
    "gradual": "unfrozen stage by stage",
    "trained": "all trained",
    "slow": "all trained, the backbone at a tenth of the rate",
}
"""How the weights of a backbone are used."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        maker: our configuration, a file of ``configs/``; or ``torchvision`` or ``smp``.
        data: ``bccd`` or ``camvid``, on whose images the best epoch is scored; None: our own validation counts.
        max_epochs: of the training, in which there are five validations.
        settings: of ours, by their dotted names.
    """

    maker: str
    data: str | None
    max_epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def validate_every(self) -> int:
        """Epochs from one validation to the next."""
        return -(-self.max_epochs // 5)


def _way(name: str, max_epochs: int) -> dict[str, Any]:
    """The settings of a way to use the backbone's weights."""
    if name == "random":
        return {}
    settings: dict[str, Any] = {"model.backbone.weights": str(BACKBONE[1])}
    if name in ("frozen", "gradual"):
        settings["model.backbone.freeze"] = "backbone"
    if name == "gradual":  # the last stage after a fifth of the training, the first one after three fifths
        settings["model.backbone.unfreeze_epoch"] = 1 + max_epochs // 5
        settings["model.backbone.unfreeze_every"] = max(1, max_epochs // 10)
    if name == "slow":
        settings["optimizer.backbone_lr_scale"] = 0.1
    return settings


_LITE = {"model.backbone.name": BACKBONE[0]}
_BCCD = {"data.root": str(DATA / "bccd"), "data.image_size": [256, 320], "data.batch_size": BATCH}
_CAMVID = {"data.root": str(DATA / "camvid_small"), "data.batch_size": BATCH}
_UNET = {**_CAMVID, **_LITE, "model.decoder_channels": [32, 64, 128, 256]}  # the peer's
_COCO_MINI = {
    "data.root": str(DATA / "coco_mini"),
    "data.image_size": 320,
    "data.batch_size": 5,
    "data.num_workers": 1,
    "data.train_images": "images",
    "data.train_annotations": "annotations/instances_train.json",
    "data.val_images": "images",
    "data.val_annotations": "annotations/instances_val.json",
}
_FOUR_CLASSES = {
    **_BCCD,
    "data.name": "coco",
    "data.train_images": ".",
    "data.train_annotations": f"{FOLDER}/four_classes_train.json",
    "data.val_images": ".",
    "data.val_annotations": f"{FOLDER}/four_classes_val.json",
}


def _detector(way: str, max_epochs: int = 20, **settings: Any) -> Run:
    return Run("yolo_bccd", "bccd", max_epochs, {**_BCCD, **_LITE, **_way(way, max_epochs), **settings})


def _segmenter(way: str, max_epochs: int = 15, **settings: Any) -> Run:
    return Run("unet_camvid", "camvid", max_epochs, {**_UNET, **_way(way, max_epochs), **settings})


def _from(run: str) -> dict[str, str]:
    return {"model.weights": f"{FOLDER}/{run}/checkpoints/best.ckpt"}


def _runs() -> Iterator[tuple[str, Run]]:
    yield "rcnn_trained", Run("faster_rcnn_bccd", "bccd", 20, {**_BCCD, **_LITE, **_way("trained", 20)})
    yield "rcnn_torchvision", Run("torchvision", "bccd", 20)
    yield "unet_trained", _segmenter("trained")
    yield "unet_smp", Run("smp", "camvid", 15)
    yield from ((f"yolo_{way}", _detector(way)) for way in ("trained", "random", "frozen", "gradual", "slow"))
    yield from ((f"unet_{way}", _segmenter(way)) for way in ("random", "frozen", "gradual", "slow"))
    few = {"data.fraction": 0.1}
    yield from ((f"few_yolo_{way}", _detector(way, 100, **few)) for way in WAYS)
    yield from ((f"few_unet_{way}", _segmenter(way, 60, **few)) for way in WAYS)
    yield "cells", Run("yolo_bccd", None, 20, _BCCD)
    yield "cells_four_classes", Run("yolo_bccd", None, 5, {**_FOUR_CLASSES, **_from("cells")})
    yield "scratch_four_classes", Run("yolo_bccd", None, 5, _FOUR_CLASSES)
    yield "photographs", Run("yolo_coco", None, 60, _COCO_MINI)
    yield "photographs_cells", Run("yolo_bccd", None, 5, {**_BCCD, **_from("photographs")})
    yield "scratch_cells", Run("yolo_bccd", None, 5, _BCCD)
    yield "cells_photographs", Run("yolo_coco", None, 5, {**_COCO_MINI, **_from("cells")})
    yield "scratch_photographs", Run("yolo_coco", None, 5, _COCO_MINI)


RUNS = dict(_runs())

TABLES = {
    "transfer_bccd": ("rcnn_trained", "rcnn_torchvision", *(f"yolo_{way}" for way in WAYS)),
    "transfer_camvid": ("unet_trained", "unet_smp", *(f"unet_{way}" for way in WAYS if way != "trained")),
    "transfer_situations": tuple(f"{run}_{way}" for run in ("few_unet", "unet", "few_yolo", "yolo") for way in WAYS),
    "fine_tuning": tuple(name for name, run in RUNS.items() if run.data is None),
}
"""Table → its runs."""
