"""What the tools say to mistakes with masks and segmenters: exactly one line, and exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detseg.checkpoint import read_raw_checkpoint, save_atomically
from detseg.cli.commands import evaluate, predict, train
from tests.cli.mistakes import Tool, assert_one_line, each_case
from tests.tiny import TinyRun, write_colors

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG, BEST = "tiny.yaml", "run/checkpoints/best.ckpt"
COUNTS = {"train": 4, "val": 2}


def mask_of(root: Path, stem: str) -> Path:
    return root / "SegmentationClass" / f"{stem}.png"


@pytest.fixture(scope="module")
def folder(tiny_segmentation: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, its settings, and everything that can be wrong with masks beside them."""
    root = tmp_path_factory.mktemp("wrong_masks")
    (root / "run").symlink_to(tiny_segmentation.run_dir)
    (root / CONFIG).write_bytes(tiny_segmentation.config_path.read_bytes())
    for path in (write_colors(root / "bright", COUNTS) / "SegmentationClass").iterdir():
        Image.fromarray(np.where(np.array(Image.open(path)) == 0, 0, 255).astype(np.uint8)).save(path)
    colored = mask_of(write_colors(root / "colored", COUNTS), "train01")
    Image.open(colored).convert("RGB").save(colored)
    mask_of(write_colors(root / "incomplete", COUNTS), "train02").unlink()
    small = mask_of(write_colors(root / "small", COUNTS), "train03")
    Image.fromarray(np.array(Image.open(small))[:-1]).save(small)
    beyond = mask_of(write_colors(root / "beyond", COUNTS), "train00")
    Image.fromarray(np.full_like(np.array(Image.open(beyond)), 9)).save(beyond)
    pairs = write_colors(root / "source", COUNTS)
    for split in COUNTS:
        shutil.copytree(pairs / "JPEGImages", root / "nameless" / split / "images")
        shutil.copytree(pairs / "SegmentationClass", root / "nameless" / split / "masks")
    (root / "nameless.yaml").write_text("model: {name: unet}\ndata: {name: mask_folder, root: nameless}\n")
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
tiny.yaml data.root=bright
    bright/SegmentationClass/train00.png and 3 more: only 'ground' and ignored pixels occur, never blue, red,
    yellow, and one class alone cannot be learned: is 255 a class? name each class in data.classes and its value in
    data.mask_values
tiny.yaml data.root=colored
    colored/SegmentationClass/train01.png: the mask is RGB, expected one value per pixel (a palette or grey image);
    its three channels are equal: save one of them
tiny.yaml data.root=incomplete
    incomplete/SegmentationClass: 1 mask(s) of the list missing: train02.png; add the files or take the names off
    the list
tiny.yaml data.root=small trainer.max_epochs=1 run_dir=new
    small/SegmentationClass/train03.png: the mask is 80 x 63 pixels (width x height), but its image
    small/JPEGImages/train03.png is 80 x 64; restore the image that the mask was made for, or correct the mask
tiny.yaml data.root=beyond
    beyond/SegmentationClass/train00.png: values {9} with 4 classes: name every class in data.classes, and in
    data.mask_values the value of each, if it is not 0, 1, 2, ... (expected: 0, 1, 2, 3, and 255 for pixels to
    ignore; 4096 px have others)
nameless.yaml
    nameless: masks hold no class names; name the classes in the order of their values, a background included, in
    data.classes, or one a line in nameless/classes.txt
tiny.yaml 'model.loss.class_weights=[1, 2]'
    model.loss: class_weights: expected 4, not all 0, got [1.0, 2.0]
tiny.yaml model.loss.cross_entropy.weight=0
    model.loss: the weights of cross_entropy, focal, dice and tversky are all 0; set one of them
tiny.yaml model.binary=true
    model.binary: needs exactly 2 classes, the data has 4; set it to false
tiny.yaml 'model.decoder_channels=[8, 8, 8]'
    model: the decoder's channels: expected 2, for the strides [1, 2], got [8, 8, 8]; set model.strides,
    model.output_stride or model.decoder_channels, or take another backbone
tiny.yaml 'model.strides=[4, 8]'
    model.backbone: a unet encoder of 3 levels has the strides [1, 2, 4], got [4, 8]; ours are csp_nano, csp_small,
    csp_medium, csp_large, unet
tiny.yaml --resume=run/checkpoints/best.ckpt model.loss.dice.weight=1 trainer.max_epochs=99
    the run cannot be resumed with other settings than it began with: model.loss.dice.weight was 0.0 and is 1.0; set
    them as they were, or start a new run
"""

EVALUATE = f"""\
run/checkpoints/best.ckpt --save-coco coco
    --save-coco: is for detectors; run/checkpoints/best.ckpt holds a unet
diverged.ckpt --split train
    {DIVERGED}
"""

PREDICT = f"""\
run/checkpoints/best.ckpt colored/JPEGImages --out new --score 0.5
    run/checkpoints/best.ckpt: is a segmentation model (unet), which gives every pixel a class and has no score
    threshold; got 0.5, leave it out
run/checkpoints/best.ckpt colored/JPEGImages --out new --tile 30 32
    tile: expected height and width in multiples of 4, the network's coarsest stride, got (30, 32)
diverged.ckpt colored/JPEGImages --out new
    {DIVERGED}
"""


@each_case((train, TRAIN), (evaluate, EVALUATE), (predict, PREDICT))
def test_a_mistake_is_one_line(
    tool: Tool, argv: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_one_line(tool, argv, message, folder, tmp_path, capsys)
