"""One 640 × 480 picture after the other at 320 pixels, end to end, beside ``predict`` of ultralytics.

Both have a nano model of 80 classes with random weights and batch-norm statistics of its own maps, and a threshold that
exactly 100 candidates of the picture reach, of which suppression at an IoU of 0.65 keeps what it keeps.  On two cores
ultralytics computes with one thread unless told otherwise; both cases are measured.  It pads a picture to the
next multiple of 32 (256 × 320), we to the square that training and evaluation use, or to what ``data.image_size`` says:
[256, 320] is the same input.  Numbers are medians (p50) of the predictions of a block.

    python -m benchmarks.predictor --blocks 7
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.in_turn import Block, Row, in_turn
from benchmarks.peer_process import ROOT, PeerProcess
from benchmarks.row_program import run_rows
from detseg.config.load import config_from_dict
from detseg.data.images.read import read_image
from detseg.factory import build_model
from detseg.models.yolo.detector import YoloDetector
from detseg.ops.letterbox import Letterbox, stack_images, to_float
from detseg.predict import ImageLike, Predictor
from detseg.structures import ClassTable, UInt8Array

PICTURES = Path(os.environ.get("DETSEG_DATA", ROOT.parent / "shared" / "data")) / "bccd" / "JPEGImages"
CLASSES = ClassTable(tuple(f"class {i}" for i in range(80)))
SQUARE, PADDED = (320, 320), (256, 320)
NUM_CANDIDATES = 100
CALLS = 30
"""Predictions of a block."""


class OurSide:
    """A predictor whose calls are timed, and within them what comes before, in and after the network.

    Args:
        image: that candidates are counted on.
        input_hw: of the network, pixels.
        compiled: whether by torch.compile.
        folded: whether batch normalisation is folded, as in every Predictor.
    """

    def __init__(
        self, image: UInt8Array, input_hw: tuple[int, int], compiled: bool = False, folded: bool = True
    ) -> None:
        settings = {"data": {"name": "voc", "root": "x", "classes": list(CLASSES.names)}}
        torch.manual_seed(0)
        model = build_model(config_from_dict(settings, "settings").model, CLASSES)
        assert isinstance(model, YoloDetector)
        with torch.no_grad():
            model.train()
            for _ in range(60):
                model(torch.rand(2, 3, *SQUARE))
        plain = Predictor(model, CLASSES, input_hw, "cpu")
        letterbox = Letterbox.fit((image.shape[0], image.shape[1]), input_hw)
        with torch.no_grad():
            maps = plain.model(to_float(stack_images([letterbox.apply(image)])))
            scores = model.scheme.decode(maps).scores.flatten().sort(descending=True).values
        self.threshold = float(scores[NUM_CANDIDATES - 1])
        model.score_threshold = min(model.score_threshold, self.threshold)
        begin = time.perf_counter()
        self.predictor = Predictor(model, CLASSES, input_hw, "cpu", self.threshold, compile=compiled)
        if not folded:
            self.predictor.model = model.eval().to(memory_format=torch.channels_last)
        self.found = len(self.predictor(image))
        self.first_call = time.perf_counter() - begin
        self.marks: list[float] = []
        network = self.predictor.model
        network.register_forward_pre_hook(lambda *_: self.marks.append(time.perf_counter()))
        network.register_forward_hook(lambda *_: self.marks.append(time.perf_counter()))
        self.calls: list[list[float]] = []

    def block(self, image: ImageLike, threads: int) -> Block:
        """Predictions of a picture; milliseconds of the middle one."""

        def work() -> float:
            torch.set_num_threads(threads)
            taken = []
            for _ in range(CALLS):
                self.marks = [time.perf_counter()]
                self.predictor(image)
                self.marks.append(time.perf_counter())
                parts = np.diff(np.array(self.marks)) * 1000
                self.calls.append([*parts.tolist(), float(parts.sum())])
                taken.append(float(parts.sum()))
            return statistics.median(taken)

        return work

    def note(self) -> str:
        """Parts, tail and what was found, of all calls since the last note."""
        calls = np.array(self.calls)
        self.calls = []
        pre, network, post, _ = np.median(calls, axis=0)
        share = (pre + post) / network
        return (
            f"ours: pre {pre:.2f} + network {network:.2f} + post {post:.2f} ms, pre + post {share:.1%} of the network;"
            f" p95 {np.percentile(calls[:, 3], 95):.1f} ms; {self.found} found"
        )


def rows(blocks: int) -> Iterator[Row]:
    """Beside the same network without folding; from an array with the threads that each side takes by itself, with two,
    and at the same input; from a file; compiled."""
    path = next(path for path in sorted(PICTURES.iterdir()) if read_image(path).shape[:2] == (480, 640))
    image = read_image(path)
    square, plain = OurSide(image, SQUARE), OurSide(image, SQUARE, folded=False)
    for threads in (1, 2):
        mine, other = in_turn(square.block(image, threads), plain.block(image, threads), blocks)
        work = f"array at 320 × 320, threads: {threads}"
        yield Row("predictor", work, "batch normalisation not folded", mine, other, "ms", 1.0, square.note())
    with tempfile.TemporaryDirectory() as folder, PeerProcess("ultralytics_predict.py") as peer:
        array = Path(folder) / "picture.npy"
        np.save(array, image)
        facts = peer.ask("load", array=str(array), jpeg=str(path), num_candidates=NUM_CANDIDATES)
        padded = OurSide(image, PADDED)
        own, both = facts["threads"], 2
        cases: list[tuple[str, OurSide, ImageLike, str, int, float | None]] = [
            (f"array at 320 × 320, ours with 2 threads, peer with its own {own}", square, image, "array", own, None),
            ("array at 320 × 320", square, image, "array", both, None),
            ("array at 256 × 320, as the peer", padded, image, "array", both, 1.5),
            ("JPEG at 256 × 320, as the peer", padded, path, "JPEG", both, 1.5),
        ]
        for work, ours, given, source, threads, wanted in cases:
            yield _row(work, ours, given, peer, facts, source, threads, blocks, wanted)
        compiled = OurSide(image, PADDED, compiled=True)
        work = f"array at 256 × 320, as the peer, compiled (first call {compiled.first_call:.0f} s)"
        yield _row(work, compiled, image, peer, facts, "array", both, blocks, None)


def _row(
    work: str,
    ours: OurSide,
    given: ImageLike,
    peer: PeerProcess,
    facts: dict[str, Any],
    source: str,
    threads: int,
    blocks: int,
    wanted: float | None,
) -> Row:
    answers: list[dict[str, float]] = []

    def theirs() -> float:
        answers.append(peer.ask("predict", source=source, count=CALLS, threads=threads))
        return answers[-1]["p50"]

    mine, other = in_turn(ours.block(given, 2), theirs, blocks)
    last = answers[-1]
    note = (
        f"{ours.note()}; theirs (input {facts['input'][2]} × {facts['input'][3]}): pre {last['pre']:.2f} + network "
        f"{last['network']:.2f} + post {last['post']:.2f} ms, p95 {last['p95']:.1f} ms; {last['found']:.0f} found"
    )
    return Row("predictor", work, f"ultralytics {facts['version']} yolov8n", mine, other, "ms", wanted, note)


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=7)
