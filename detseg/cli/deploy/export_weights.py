"""`detseg export-weights`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import ToolParser
from detseg.errors import ConfigError, require_torch_extra


def export_weights(argv: Sequence[str]) -> None:
    """A run → weights, settings and classes as safetensors: detseg export-weights runs/yolo yolo.safetensors"""
    parser = ToolParser(
        "export-weights",
        "Write a checkpoint's weights (the averaged ones, where it has them), settings and classes as a safetensors "
        "file, which `detseg predict`, `detseg evaluate` and load_predictor take like a checkpoint.",
    )
    parser.add_argument("checkpoint", type=Path, help="a run directory, whose best.ckpt counts, or a .ckpt file")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors", help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    arguments = parser.parse_args(argv)
    if arguments.out.suffix != ".safetensors":
        raise ConfigError(f"{arguments.out}: expected a name that ends in .safetensors, by which it is recognised")
    if arguments.out.exists() and not arguments.overwrite:
        raise ConfigError(f"{arguments.out}: exists already; choose another name, or replace it with --overwrite")

    require_torch_extra("detseg export-weights")
    from detseg.checkpoint import read_model_checkpoint, write_weights

    trained = read_model_checkpoint(arguments.checkpoint)
    write_weights(arguments.out, trained)
    print(f"{arguments.out}: {len(trained.weights)} tensors, {len(trained.classes)} classes, epoch {trained.epoch}")
