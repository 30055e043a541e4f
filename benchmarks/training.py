"""Steps and epochs of training beside the peers', on two threads; docs/benchmarks.md says what is compared.

Ours is a whole Lightning training of our task; the time of a step is what lies between Lightning's hooks around it.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import segmentation_models_pytorch as smp
import torch
import torchvision
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from benchmarks.comparison import DATA, Block, Row, in_turn
from benchmarks.peers.process import PeerProcess, yolo_labels
from benchmarks.peers.serve import PacedTraining
from detseg.config.load import config_from_dict
from detseg.ops.tensors import to_float
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.training.setup.build import build_data, build_task, open_data
from detseg.training.setup.trainer import quiet_lightning, resolve_precision

PRECISION = resolve_precision("auto", "cpu")
torch.set_num_threads(2)
torch.manual_seed(0)
NO_AUGMENTATION = dict.fromkeys(
    ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "flipud", "fliplr", "mosaic", "mixup"), 0.0
)


def yolo_step(blocks: int = 8, small: bool = False) -> Iterator[Row]:
    """The nano detector beside ultralytics', on one batch in memory: in our default precision, then in float32."""
    side, size, steps = (64, 2, 1) if small else (320, 16, 2)
    batch = random_batch(side, size, num_objects=8, num_classes=80)
    with tempfile.TemporaryDirectory() as folder, PeerProcess() as peer:
        objects = [(f"{i}", t.boxes.tolist(), t.labels.tolist(), (side, side)) for i, t in enumerate(batch.targets)]
        data = _write_yolo(Path(folder), [f"class{i}" for i in range(80)], objects)
        for i, image in enumerate(batch.images):
            cv2.imwrite(f"{folder}/images/{i}.png", image.permute(1, 2, 0).numpy()[..., ::-1])
        settings = {"imgsz": side, "batch": size, "workers": 0, "cache": "ram", **data, **NO_AUGMENTATION}
        theirs = peer.ask("train", unit="batch", settings=settings)
        for precision in dict.fromkeys((PRECISION, "float32")):
            task, first = task_of({"name": "yolo"}, 80), precision == PRECISION
            training = _training(task, [batch], "batch", precision)
            other = _per_step(lambda units: float(peer.ask("advance", units=units)), steps)
            times = in_turn(_per_step(training.advance, steps), other, blocks)
            training.end()
            stage = "training step" if first else "training step, ours in float32 too"
            work = f"nano, {side} px, batch {size}, 80 classes, 8 objects an image; ours {precision}"
            name = f"ultralytics {peer.ask('version')} yolov8n.yaml, float32"
            note = f"ours {_size(task.model, side)}, theirs {theirs['millions']:.2f} M, {theirs['gflops']:.2f} GFLOPs"
            yield Row(stage, work, name, *times, "ms", 1.5 if first else None, note)
    yield _losses_in_step(task_of({"name": "yolo"}, 80).model, batch, blocks * steps)


def _losses_in_step(model: Any, batch: Batch, steps: int) -> Row:
    """The losses with assignment and their gradient, ``ours``, beside forward and backward with them, ``theirs``."""
    parts: list[tuple[float, float]] = []
    model.train()
    for _ in range(steps + 1):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, PRECISION == "bfloat16"):
            maps = model(to_float(batch.images))
        leaves = [raw.detach().requires_grad_() for raw in maps]
        between = time.perf_counter()
        terms = model.scheme.losses([raw.float() for raw in leaves], batch.targets)
        torch.autograd.backward(list(terms.values()))
        losses = time.perf_counter() - between
        torch.autograd.backward(maps, [raw.grad for raw in leaves])
        model.zero_grad()
        parts.append((losses * 1000, (time.perf_counter() - begin) * 1000))
    mine, whole = zip(*parts[1:], strict=True)
    return Row("loss + assignment", "of the same step", "our forward and backward with them", mine, whole, "ms", 10.0)


def bccd_epoch(blocks: int = 3, small: bool = False) -> Iterator[Row]:
    """Seconds of an epoch of real images beside ultralytics'; each reads from disk, with one worker and mosaic."""
    side, size = 64 if small else 320, 16
    augmentation = {"mosaic": 1.0, "color": {"probability": 1.0}}
    section = {"name": "voc", "root": str(DATA / "bccd"), "image_size": side, "batch_size": size, "num_workers": 1}
    config = config_from_dict({"model": {"name": "yolo"}, "data": {**section, "augmentation": augmentation}})
    train_set: Any
    config, train_set, val_set = open_data(config)
    task = build_task(config, train_set.classes, load_pretrained=False)
    paths = [Path(train_set.path(i)).resolve() for i in range(len(train_set))]
    with tempfile.TemporaryDirectory() as folder, PeerProcess() as peer:
        truth = [train_set.annotations(i) for i in range(len(train_set))]
        objects = [(paths[i].stem, t.boxes.tolist(), t.labels.tolist(), train_set.hw(i)) for i, t in enumerate(truth)]
        data = _write_yolo(Path(folder), train_set.classes.names, objects)
        for path in paths:
            Path(folder, "images", path.name).symlink_to(path)
        peer.ask("train", unit="epoch", settings={"imgsz": side, "batch": size, "workers": 1, **data})
        training = _training(task, build_data(config, train_set, val_set), "epoch", PRECISION)
        times = in_turn(lambda: training.advance(1), lambda: float(peer.ask("advance", units=1)), blocks)
        training.end()
        work = f"BCCD, {len(train_set)} images at {side} px, batch {size}, 1 worker, mosaic; ours {PRECISION}"
        name = f"ultralytics {peer.ask('version')} yolov8n.yaml, float32"
        yield Row("training epoch, loader included", work, name, *times, "s", 1.5, "each side's own augmentation")


def unet_step(blocks: int = 6, small: bool = False) -> Iterator[Row]:
    """U-Net on a ResNet-18 beside segmentation-models-pytorch's: theirs in float32, then in bfloat16."""
    side, size, steps = (64, 2, 1) if small else (256, 8, 4)
    widths = [16, 32, 64, 128, 256]
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    semantic = torch.randint(0, 21, (size, side // 16, side // 16), dtype=torch.uint8)
    semantic = semantic.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    decoder = {"strides": [2, 4, 8, 16, 32], "decoder_channels": widths, "upsampling": "resize"}
    loss = {"cross_entropy": {"weight": 0.0}, "dice": {"weight": 1.0}}
    task = task_of({"name": "unet", "backbone": {"name": "resnet18"}, **decoder, "loss": loss}, 21)
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=21, decoder_channels=widths[::-1])
    note = f"ours {_size(task.model, side)}, theirs {_size(theirs, side)}"
    batch = Batch(images, [BoxTargets.empty()] * size, list(range(size)), semantic=semantic)
    training = _training(task, [batch], "batch", PRECISION)
    optimizer, dice = torch.optim.AdamW(theirs.parameters(), lr=1e-3), smp.losses.DiceLoss(mode="multiclass")

    def losses_of(autocast: bool, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = theirs(images)
        return {"dice": dice(logits.float(), masks)}

    for precision in dict.fromkeys(("float32", PRECISION)):
        first, data = precision == "float32", [(images.float() / 255, semantic.long())] * steps
        loop = _plain_loop(partial(losses_of, precision == "bfloat16"), optimizer, data)
        times = in_turn(_per_step(training.advance, steps), loop, blocks)
        stage = "training step of U-Net" + ("" if first else ", theirs in bfloat16 too")
        work = f"ResNet-18, {side} px, batch {size}, 21 classes, Dice; ours {PRECISION}"
        name = f"segmentation-models-pytorch {version('segmentation-models-pytorch')}, {precision}"
        yield Row(stage, work, name, *times, "ms", 1.3 if first else None, note)


def rcnn_step(blocks: int = 6, small: bool = False) -> Iterator[Row]:
    """Faster R-CNN beside torchvision's reference loop, with its weights: in our default precision, then float32."""
    side, size, model = 64 if small else 320, 2, {"name": "faster_rcnn", "variant": "resnet50_fpn"}
    batches = [random_batch(side, size, num_objects=10, num_classes=3) for _ in range(2)]
    data = []
    for batch in batches:
        targets = [{"boxes": target.boxes, "labels": target.labels + 1} for target in batch.targets]
        data.append(([image.float() / 255 for image in batch.images], targets))
    sgd: dict[str, Any] = {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0001}
    for precision in dict.fromkeys((PRECISION, "float32")):
        first, fixed = precision == PRECISION, {"min_size": side, "max_size": side}  # it resizes nothing
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4, **fixed).train()
        task = task_of(model, 3, {"name": "sgd", **sgd}, ema_decay=0.0)
        state = {name.replace("backbone.fpn.", "neck.fpn."): value for name, value in theirs.state_dict().items()}
        different = itertools.chain(*task.model.load_state_dict(state, strict=False))
        if names := [name for name in different if not name.startswith("normalize")]:
            raise RuntimeError(f"the two networks differ: {names[:5]}")
        optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], **sgd)
        loop = _plain_loop(theirs, optimizer, data)
        training = _training(task, batches, "batch", precision)
        times = in_turn(_per_step(training.advance, 2), loop, blocks)
        training.end()
        stage = "training step of Faster R-CNN" + ("" if first else ", ours in float32 too")
        work = f"ResNet-50-FPN, {side} px, batch {size}, 10 objects an image; ours {precision}"
        name, note = f"torchvision {torchvision.__version__}, float32", "the same network and weights"
        yield Row(stage, work, name, *times, "ms", 1.1 if first else None, note)


def _per_step(advance: Callable[[int], float], steps: int) -> Block:
    return lambda: advance(steps) * 1000 / steps  # milliseconds, of seconds


def _plain_loop(losses_of: Callable[..., Any], optimizer: torch.optim.Optimizer, data: list[Any]) -> Block:
    """Milliseconds of a step of a plain loop, as the peers document it, over the sum of the losses."""

    def block() -> float:
        begin = time.perf_counter()
        for given in data:
            loss: Any = sum(losses_of(*given).values())
            loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - begin) * 1000 / len(data)

    return block


def task_of(model: dict[str, Any], num_classes: int, optimizer: Any = None, ema_decay: float = 0.999) -> Any:
    """The task of a training with default settings, on data that is made here."""
    settings = {"model": model, "data": {"name": "voc", "root": "unused"}, "trainer": {"ema_decay": ema_decay}}
    config = config_from_dict(settings | ({"optimizer": optimizer} if optimizer else {}))
    classes = ClassTable(tuple(f"class{i}" for i in range(num_classes)))
    return build_task(config, classes, load_pretrained=False)


def _training(task: Any, data: Any, unit: str, precision: str) -> PacedTraining:
    """A Lightning training held at its first ``batch`` or ``epoch``: on a list of batches, or on a data module."""
    quiet_lightning()
    options: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 100_000, "limit_val_batches": 0}
    options |= {"precision": "bf16-mixed" if precision == "bfloat16" else "32-true", "gradient_clip_val": 10.0}
    options |= dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)

    def train(paced: PacedTraining) -> None:
        hooks: dict[str, Any] = {f"on_train_{unit}_start": paced.before, f"on_train_{unit}_end": paced.after}
        loader = DataLoader(data, batch_size=None) if unit == "batch" else data  # a list is enough of a data set
        L.Trainer(callbacks=[LambdaCallback(**hooks)], **options).fit(task, loader)

    return PacedTraining(train)


def random_batch(side: int, size: int, num_objects: int, num_classes: int) -> Batch:
    """Noise with random boxes."""
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    corners = torch.rand(size, num_objects, 2) * side * 0.6
    boxes = torch.cat([corners, corners + side / 20 + torch.rand(size, num_objects, 2) * side * 0.3], dim=2)
    labels, ignore = torch.randint(0, num_classes, (size, num_objects)), torch.zeros(num_objects, dtype=torch.bool)
    return Batch(images, [BoxTargets(boxes[i], labels[i], ignore) for i in range(size)], list(range(size)))


def _write_yolo(folder: Path, classes: Iterable[str], objects: Iterable[tuple[str, Any, Any, Any]]) -> dict[str, str]:
    """Label files, of stem, boxes, labels and image size each, and an empty folder ``images``; settings of the peer."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for stem, boxes, labels, hw in objects:
        (folder / "labels" / f"{stem}.txt").write_text(yolo_labels(boxes, labels, hw), encoding="utf-8")
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(classes))
    text = f"path: {folder}\ntrain: images\nval: images\nnames:\n{names}\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return {"data": f"{folder}/data.yaml", "project": f"{folder}/runs"}


def _size(model: Any, side: int) -> str:
    """Parameters, and floating-point operations of a forward pass (a multiplication and an addition are two)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    parameters = sum(parameter.numel() for parameter in model.train().parameters())
    return f"{parameters / 1e6:.2f} M parameters, {counter.get_total_flops() / 1e9:.2f} GFLOPs forward an image"
