"""What the tools say to mistakes with masks and segmenters: exactly one line, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detseg.checkpoint import read_raw_checkpoint, save_atomically
from detseg.cli.deploy.predict import predict
from detseg.cli.evaluation.evaluate import evaluate
from detseg.cli.train import train
from tests.cli.mistakes import Tool, assert_one_line, each_case
from tests.tiny import TinyRun, write_colors

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG, BEST = "tiny.yaml", "run/checkpoints/best.ckpt"
COUNTS = {"train": 4, "val": 2}


@pytest.fixture(scope="module")
def folder(tiny_segmentation: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, its settings, and everything that can be wrong with masks beside them."""
    root = tmp_path_factory.mktemp("wrong_masks")
    (root / "run").symlink_to(tiny_segmentation.run_dir)
    (root / CONFIG).write_bytes(tiny_segmentation.config_path.read_bytes())
    small = write_colors(root / "small", COUNTS) / "SegmentationClass" / "train03.png"
    Image.fromarray(np.array(Image.open(small))[:-1]).save(small)
    beyond = write_colors(root / "beyond", COUNTS) / "SegmentationClass" / "train00.png"
    Image.fromarray(np.full_like(np.array(Image.open(beyond)), 9)).save(beyond)
    diverged = dict(read_raw_checkpoint(tiny_segmentation.best))
    diverged["state_dict"] = {
        name: torch.full_like(value, torch.nan) if name.endswith("head.score.bias") else value
        for name, value in diverged["state_dict"].items()
    }
    save_atomically(diverged, root / "diverged.ckpt")
    return root


DIVERGED = (
    "diverged.ckpt: NaN or infinite in 1 of 68 tensors, first in head.score.bias: the training had diverged; take an "
    "earlier checkpoint, or train again with a lower optimizer.lr"
)

TRAIN = """\
tiny.yaml data.root=small trainer.max_epochs=1 run_dir=new
    small/SegmentationClass/train03.png: the mask is 80 x 63 pixels (width x height), but its image
    small/JPEGImages/train03.png is 80 x 64; restore the image that the mask was made for, or correct the mask
tiny.yaml data.root=beyond
    beyond/SegmentationClass/train00.png: values {9} with 4 classes: name every class in data.classes, and in
    data.mask_values the value of each, if it is not 0, 1, 2, ... (expected: 0, 1, 2, 3, and 255 for pixels to
    ignore; 4096 px have others)
tiny.yaml 'model.loss.class_weights=[1, 2]'
    model.loss: class_weights: expected 4, not all 0, got [1.0, 2.0]
tiny.yaml model.loss.cross_entropy.weight=0
    model.loss: the weights of cross_entropy, focal, dice and tversky are all 0; set one of them
tiny.yaml 'model.strides=[4, 8]'
    model.backbone: a unet encoder of 3 levels has the strides [1, 2, 4], got [4, 8]; ours are csp_nano, csp_small,
    csp_medium, csp_large, unet
"""

EVALUATE = f"""\
diverged.ckpt --split train
    {DIVERGED}
"""

PREDICT = f"""\
run/checkpoints/best.ckpt small/JPEGImages --out new --tile 30 32
    tile: expected height and width in multiples of 4, the network's coarsest stride, got (30, 32)
diverged.ckpt small/JPEGImages --out new
    {DIVERGED}
"""


@each_case((train, TRAIN), (evaluate, EVALUATE), (predict, PREDICT))
def test_a_mistake_is_one_line(
    tool: Tool, argv: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_one_line(tool, argv, message, folder, tmp_path, capsys)
