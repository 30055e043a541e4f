"""`detseg export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import CHECKPOINT, ToolParser, exit_on_sigterm, score
from detseg.export.options import check_options


def export(argv: Sequence[str]) -> None:
    """A run → a file for other programs, compared with it: detseg export runs/mine --format onnx"""
    what = (
        "Write a model as ONNX, OpenVINO or torch.export file that holds classes, preprocessing, decoding and NMS, and "
        "compare it with the checkpoint on validation images."
    )
    parser = ToolParser("export", what)
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings of data over those of the run")
    parser.add_argument("--format", choices=("onnx", "openvino", "torch"), default="onnx", help="of the file (onnx)")
    precision = "of the weights (fp32); int8 is calibrated on the images of the split"
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help=precision)
    static = "one image of this size at a time alone (as many as come, of the run's size)"
    parser.add_argument("--static", type=int, nargs=2, metavar=("H", "W"), help=static)
    sizes = "YOLO and segmentation models: take inputs of any size, so that --scales and tiles of any size work"
    parser.add_argument("--any-size", action="store_true", help=sizes)
    outside = "YOLO: leave NMS to the program that reads the file, as OpenCV's DNN module needs it"
    parser.add_argument("--without-nms", action="store_true", help=outside)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file (export/ in the run directory)")
    split = "images of the comparison and of the calibration (val)"
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help=split)
    tolerance = "how much AP or mIoU may be lost before the export fails, 0 to 1 (0.01)"
    parser.add_argument("--tolerance", type=score, default=0.01, help=tolerance)
    arguments = parser.parse_intermixed_args(argv)

    check_options(arguments.format, arguments.precision, arguments.out)
    from detseg.export.run import export_checkpoint

    with exit_on_sigterm():
        export_checkpoint(
            arguments.checkpoint,
            arguments.format,
            arguments.out,
            precision=arguments.precision,
            static_hw=arguments.static and tuple(arguments.static),
            any_size=arguments.any_size,
            nms=not arguments.without_nms,
            split=arguments.split,
            overrides=arguments.overrides,
            tolerance=arguments.tolerance,
        )
