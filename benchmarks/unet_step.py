"""A training step of U-Net on a ResNet-18 beside segmentation-models-pytorch's: 256 px, batch 8, 21 classes, Dice.

Both decoders are 256, 128, 64, 32 and 16 wide; ours enlarges by interpolation and a convolution, which is a tenth more
work than theirs, which repeats pixels.  Theirs runs as its documentation shows it, float32 and a plain loop; a second
row has it under bfloat16 autocast, so that one sees what is precision and what is the rest.

    python -m benchmarks.unet_step
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.in_turn import Row, in_turn
from benchmarks.row_program import run_rows
from benchmarks.training import LIGHTNING_NAMES, PacedTraining
from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import SemanticSegmentation
from detseg.training.setup.trainer import resolve_precision
from detseg.training.task import Task

SIDE, BATCH, CLASSES, STEPS = 256, 8, 21, 4
WIDTHS = [16, 32, 64, 128, 256]
MODEL: dict[str, Any] = {
    "name": "unet",
    "backbone": {"name": "resnet18"},
    "strides": [2, 4, 8, 16, 32],
    "decoder_channels": WIDTHS,
    "upsampling": "resize",
    "loss": {"cross_entropy": {"weight": 0.0}, "dice": {"weight": 1.0}},
}


def rows(blocks: int) -> Iterator[Row]:
    """Theirs in float32, then in bfloat16."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    precision = resolve_precision("auto", "cpu")
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    semantic = torch.randint(0, CLASSES, (BATCH, SIDE // 16, SIDE // 16), dtype=torch.uint8)
    semantic = semantic.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    classes = ClassTable(tuple(f"class{i}" for i in range(CLASSES)))
    config = config_from_dict({"model": MODEL, "data": {"name": "voc", "root": "unused"}})
    model = build_model(config.model, classes, load_pretrained=False)
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=CLASSES, decoder_channels=WIDTHS[::-1])
    note = f"ours {size_of(model)}, theirs {size_of(theirs)}"
    task = Task(SemanticSegmentation(), model, classes, ema_decay=0.999)
    batch = Batch(images, [BoxTargets.empty()] * BATCH, list(range(BATCH)), semantic=semantic)
    training = PacedTraining(task, [batch], "batch", precision=LIGHTNING_NAMES[precision])
    for format_ in dict.fromkeys(("float32", precision)):
        loop = reference_loop(theirs, images.float() / 255, semantic.long(), format_ == "bfloat16")
        mine, other = in_turn(training.block(STEPS), loop, blocks)
        yield Row(
            "training step of U-Net" + ("" if format_ == "float32" else ", theirs in bfloat16 too"),
            f"ResNet-18, {SIDE} px, batch {BATCH}, {CLASSES} classes, Dice; ours {precision}",
            f"segmentation-models-pytorch {version('segmentation-models-pytorch')}, {format_}",
            mine,
            other,
            "ms",
            1.3 if format_ == "float32" else None,
            note,
        )


def reference_loop(model: Any, images: Tensor, masks: Tensor, autocast: bool) -> Callable[[], float]:
    """A block of the loop of the library's examples: forward, Dice loss, backward, Adam's step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_of = smp.losses.DiceLoss(mode="multiclass")
    model.train()

    def block() -> float:
        begin = time.perf_counter()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = model(images)
            loss = loss_of(logits.float(), masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - begin) * 1000 / STEPS

    return block


def size_of(model: Any) -> str:
    """Parameters, and floating-point operations of a forward pass (a multiplication and an addition are two)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, SIDE, SIDE))
    parameters = sum(parameter.numel() for parameter in model.train().parameters())
    return f"{parameters / 1e6:.2f} M parameters, {counter.get_total_flops() / 1e9:.2f} GFLOPs forward an image"


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=6)
