"""Exported models beside our own eager predictor, and beside ultralytics' export of the same format; see
docs/benchmarks.md.

Both sides have two threads and the same square input; weights are random, and each side's threshold leaves as many
candidates as the other's. Once end to end, from an array to its detections; once the networks alone, both files in one
runtime with the same settings. OpenVINO computes the peer's file as the CPU does best, in bfloat16 where it can, and so
it does our file of half precision; that of full precision it computes in float32.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from benchmarks.comparison import DATA, Block, Row, in_turn
from benchmarks.peers.process import PeerProcess
from benchmarks.predictor import CLASSES, NUM_CANDIDATES, OurSide
from detseg.data.images.read import read_image
from detseg.export.files import onnx_model, write_openvino
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import stack_images, to_float
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.engines import open_engine
from detseg.predict.runtime.predictor import load_exported
from detseg.structures import UInt8Array

THREADS = 2
SIDES = (320, 640)
Format = Literal["onnx", "openvino", "openvino fp16"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(ours: OurSide, side: int, folder: Path, nms: bool) -> dict[Format, Path]:
    """All formats of our network; without NMS of one image alone, as the peer's is."""
    model: Any = ours.predictor.model
    description = Description(
        task="detection",
        model="yolo",
        classes=CLASSES,
        input_hw=(side, side),
        batch=None if nms else 1,
        any_size=False,
        stride=32,
        nms=nms,
        score_threshold=model.score_threshold,
        nms_iou=model.nms_iou,
        max_detections=model.max_detections,
    )
    stem = folder / f"{side}_{nms}"
    onnx, full, half = (stem.with_name(stem.name + end) for end in (".onnx", "_fp32.xml", "_fp16.xml"))
    onnx.write_bytes(onnx_model(model, description).SerializeToString())
    write_openvino(onnx, description, full)
    write_openvino(onnx, replace(description, precision="fp16"), half)
    return dict(zip(FORMATS, (onnx, full, half), strict=True))


def calls(predictor: Any, image: UInt8Array, count: int) -> Block:
    """Predictions of an image; milliseconds of the middle one."""

    def work() -> float:
        taken = []
        for _ in range(count):
            begin = time.perf_counter()
            predictor(image)
            taken.append(1000 * (time.perf_counter() - begin))
        return statistics.median(taken)

    return work


def alone(path: Path, inputs: np.ndarray[Any, Any], count: int, full: bool) -> Block:
    """The network of a file of either side, in the runtime of its format; ``full``: OpenVINO has to take float32."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return calls(lambda images: session.run(None, {name: images}), inputs, count)
    import openvino

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
    settings |= {"INFERENCE_PRECISION_HINT": "f32"} if full else {}
    network = openvino.compile_model(openvino.Core().read_model(path), "CPU", settings)
    return calls(lambda images: network([images]), inputs, count)


def exported(blocks: int = 7, small: bool = False) -> Iterator[Row]:
    """By input size and format: beside the eager predictor, beside the peer end to end, and the networks alone."""
    count = 2 if small else 30
    paths = sorted((DATA / "bccd" / "JPEGImages").iterdir())
    image = next(array for array in map(read_image, paths) if array.shape[:2] == (480, 640))
    with tempfile.TemporaryDirectory() as folder, PeerProcess(THREADS) as peer:
        array = Path(folder) / "image.npy"
        np.save(array, image)
        version = f"ultralytics {peer.ask('version')} yolov8n"
        for side in SIDES[: 1 if small else None]:
            ours = OurSide(image, (side, side))
            square = Letterbox.fit((image.shape[0], image.shape[1]), (side, side)).apply(image)
            inputs = to_float(stack_images([square])).contiguous().numpy()
            own, plain = (export(ours, side, Path(folder), nms) for nms in (True, False))
            for form in FORMATS:
                predictor: Any = load_exported(own[form], "cpu", ours.predictor.score_threshold, THREADS)
                found = len(predictor(image))
                work = f"{form}, array at {side} × {side}"
                times = in_turn(calls(predictor, image, count), ours.block(image, THREADS, count), blocks)
                yield Row("export", work, "our predictor in torch", *times, "ms", 2.0, f"{found} found; {ours.note()}")
                facts = {"folder": folder, "side": side, "format": form.split()[0]}
                theirs = Path(peer.ask("export", array=str(array), num_candidates=NUM_CANDIDATES, **facts))
                asked = {"source": "array", "count": count, "threads": THREADS, "side": side}
                times = in_turn(calls(predictor, image, count), peer.block("predict", "p50", **asked), blocks)
                note = (
                    "theirs: pre {preprocess:.2f} + network {inference:.2f} + post {postprocess:.2f} ms; {found} found"
                ).format(**peer.last)
                yield Row("export", work, version, *times, "ms", 1.2, f"{found} found; {note}")
                mine, other = (alone(path, inputs, count, form == "openvino") for path in (plain[form], theirs))
                yield Row("export, network alone", work, version, *in_turn(mine, other, blocks), "ms", 1.2)
            ours.calls.clear()
        assert open_engine(own["onnx"], "cpu").metadata  # what was measured is what users export
