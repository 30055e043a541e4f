"""A data set and a training small enough for tests, whose numbers are still worth comparing."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from detseg.checkpoint import read_model_checkpoint
from detseg.config.load import load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.formats.coco_writer import CocoWriter
from detseg.structures import InstanceMasks
from tests.data.formats.layouts import annotation_xml, object_xml

CLASSES = ("blue", "red", "yellow")
WORTH_COMPARING = 0.1
"""What a finished training reaches at least in its last validation: far from the 0 that a broken comparison would find
equal to anything, and well below what is usual."""
_TRIES = 5
_COLORS = {"blue": (40, 60, 230), "red": (230, 40, 40), "yellow": (235, 225, 40)}


def write_colors(root: Path, counts: dict[str, int] | None = None, seed: int = 0) -> Path:
    """A VOC folder of dark images of several sizes, each with up to two coloured rectangles; the class is the colour.

    Every fifth object is difficult, and void in the masks; the last image of a split has no object.

    Args:
        root: the folder.
        counts: images by split.
        seed: another seed gives other images.
    """
    for name in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    num_objects = 0
    for split, count in (counts or {"train": 16, "val": 9, "test": 5}).items():
        stems = [f"{split}{i:02d}" for i in range(count)]
        for i, stem in enumerate(stems):
            width, height = ((64, 64), (90, 60), (50, 75), (80, 64))[i % 4]
            image = rng.integers(0, 50, (height, width, 3)).astype(np.uint8)
            mask = np.zeros((height, width), dtype=np.uint8)
            objects = ""
            for _ in range(0 if i + 1 == count else 1 + i % 2):
                num_objects += 1
                name = str(rng.choice(CLASSES))
                w, h = rng.integers(18, 36, 2).tolist()
                x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
                image[y : y + h, x : x + w] = _COLORS[name]
                mask[y : y + h, x : x + w] = 255 if num_objects % 5 == 0 else 1 + CLASSES.index(name)
                difficult = "<difficult>1</difficult>" if num_objects % 5 == 0 else ""
                objects += object_xml((name, x + 1, y + 1, x + w, y + h), difficult)
            Image.fromarray(image).save(root / "JPEGImages" / f"{stem}.png")
            Image.fromarray(mask).save(root / "SegmentationClass" / f"{stem}.png")
            xml = annotation_xml(objects, f"{stem}.png", (width, height))
            (root / "Annotations" / f"{stem}.xml").write_text(xml, encoding="utf-8")
        for task in ("Main", "Segmentation"):
            (root / "ImageSets" / task / f"{split}.txt").write_text("\n".join(stems), encoding="utf-8")
    return root


def write_ellipses(root: Path, counts: dict[str, int] | None = None, seed: int = 0) -> Path:
    """A COCO folder of dark images of several sizes, each with up to two coloured ellipses and their masks; the class
    is the colour.

    Args:
        root: the folder.
        counts: images by split, which is the name of the folder.
        seed: another seed gives other images.
    """
    rng = np.random.default_rng(seed)
    writer = CocoWriter(root, CLASSES)
    for split, count in (counts or {"train": 24, "val": 9}).items():
        for i in range(count):
            width, height = ((64, 64), (90, 60), (50, 75), (80, 64))[i % 4]
            image = rng.integers(0, 50, (height, width, 3)).astype(np.uint8)
            rows, columns = np.mgrid[:height, :width]
            labels, masks = [], np.zeros((0, height, width), dtype=np.bool_)
            for _ in range(1 + i % 2):
                labels.append(int(rng.integers(len(CLASSES))))
                w, h = rng.integers(18, 36, 2).tolist()
                x, y = rng.integers(w // 2, width - w // 2), rng.integers(h // 2, height - h // 2)
                mask = ((columns - x) / w) ** 2 + ((rows - y) / h) ** 2 <= 0.25
                image[mask] = _COLORS[CLASSES[labels[-1]]]
                masks = np.concatenate([masks & ~mask, mask[None]])  # the later one lies on top
            seen = masks.any(axis=(1, 2))
            boxes = InstanceMasks.from_dense(masks[seen]).boxes
            writer.add(split, f"{split}{i:02d}", image, boxes, np.array(labels)[seen], masks[seen])
    writer.finish()
    return root


def write_config(path: Path, data_root: Path) -> Path:
    """A configuration file that learns ``write_colors`` in seconds, in the main process and in float32."""
    data = {"name": "voc", "root": str(data_root), "classes": list(CLASSES), "image_size": 64}
    average = {"ema_decay": 0.8, "ema_warmup_steps": 4}
    epochs = {"max_epochs": 16, "validate_every": 5, "num_previews": 2}
    settings = {
        "model": {"backbone": {"width": 0.0625, "depth": 0.1}, "neck": {"name": "fpn", "channels": 32}},
        "data": data | {"batch_size": 2, "num_workers": 0, "augmentation": {"horizontal_flip": 0.5}},
        "optimizer": {"name": "adamw", "lr": 0.005},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "trainer": {"accelerator": "cpu", "precision": "float32"} | average | epochs,
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def write_segmentation_config(path: Path, data_root: Path) -> Path:
    """The same for the masks of ``write_colors``: a small U-Net, at a size that is no multiple of its strides."""
    settings = yaml.safe_load(write_config(path, data_root).read_text(encoding="utf-8"))
    settings["model"] = {"name": "unet", "backbone": {"name": "unet", "width": 0.125, "levels": 3}}
    settings["data"] |= {"classes": ["ground", *CLASSES], "image_size": [70, 90]}
    settings["optimizer"] = {"name": "adamw", "lr": 0.01}
    settings["trainer"] |= {"max_epochs": 6, "validate_every": 2}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def write_instance_config(path: Path, data_root: Path) -> Path:
    """A configuration file that learns ``write_ellipses`` in seconds: a small Mask R-CNN."""
    settings = yaml.safe_load(write_config(path, data_root).read_text(encoding="utf-8"))
    in_training = {"batch_size_per_image": 64, "pre_nms_top_n_train": 100, "post_nms_top_n_train": 64}
    settings["model"] = {
        "name": "mask_rcnn",
        "backbone": {"name": "csp_nano", "width": 0.125, "depth": 0.1},
        "neck": {"channels": 32},
        "rpn": in_training
        | {"anchor_sizes": [[16], [24], [32], [48], [64]], "pre_nms_top_n": 100, "post_nms_top_n": 32},
        "roi_heads": {"hidden": 64, "batch_size_per_image": 32},
        "mask": {"channels": 16, "convolutions": 1},
    }
    folders = {"train_images": "train", "val_images": "val"}
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    settings["data"] |= {"name": "coco"} | folders | files
    settings["trainer"] |= {"max_epochs": 20, "validate_every": 10}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


WRITERS: dict[str, tuple[Callable[[Path, Path], Path], Callable[..., Path]]] = {
    "yolo": (write_config, write_colors),
    "unet": (write_segmentation_config, write_colors),
    "mask_rcnn": (write_instance_config, write_ellipses),
}
"""Model → what writes its settings and its data."""


@dataclass(frozen=True)
class TinyRun:
    """A finished training.

    Attributes:
        config_path: its configuration file.
        data_root: its data, a VOC folder.
        run_dir: what it left.
    """

    config_path: Path
    data_root: Path
    run_dir: Path

    @property
    def best(self) -> Path:
        """The checkpoint of its best epoch."""
        return self.run_dir / "checkpoints" / "best.ckpt"

    def rows(self) -> list[dict[str, str]]:
        return rows_of(self.run_dir)

    def evaluate(self, *overrides: str, split: Any = "val", coco_dir: Path | None = None) -> Any:
        """What evaluation finds for its best epoch."""
        from detseg.evaluation import evaluate_checkpoint, evaluation_config

        config = evaluation_config(read_model_checkpoint(self.best).config, str(self.best), overrides)
        return evaluate_checkpoint(self.best, split, config, "cpu", coco_dir)


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``."""
    with (run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def train_tiny_run(
    run: TinyRun,
    write_settings: Callable[[Path, Path], Path] = write_config,
    metric: str = "AP",
    write_data: Callable[[Path], Path] = write_colors,
) -> TinyRun:
    """Write a run's data and settings, and train until the metric is worth comparing.

    What a training of seconds learns differs from CPU to CPU: rounding decides, and grows with every step. Where it was
    too little, another seed is taken, of which the settings then tell.
    """
    from detseg.training.run import train

    torch.set_num_threads(1)  # tiny layers are slower on several
    write_data(run.data_root)
    config_path = write_settings(run.config_path, run.data_root)
    settings = yaml.safe_load(config_path.read_text(encoding="utf-8"))
    reached = []
    for seed in range(_TRIES):
        config_path.write_text(yaml.safe_dump(settings | {"seed": seed}), encoding="utf-8")
        train(tiny_config(config_path, run.run_dir), config_path)
        reached.append(float(run.rows()[-1][f"val/{metric}"]))
        if reached[-1] >= WORTH_COMPARING:
            return run
        shutil.rmtree(run.run_dir)
    raise AssertionError(f"trainings of {config_path} do not learn: {metric} {reached}")


def tiny_config(path: Path, run_dir: Path | None, *overrides: str) -> ExperimentConfig:
    """The configuration of ``write_config`` with overrides."""
    wanted: Sequence[str] = overrides if run_dir is None else (f"run_dir={run_dir}", *overrides)
    return load_config(path, wanted)
