"""One 640 × 480 image after the other, end to end, beside ``predict`` of ultralytics; see docs/benchmarks.md."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import DATA, Block, Row, in_turn
from benchmarks.peers.process import PeerProcess
from detseg.config.load import config_from_dict
from detseg.data.images.read import read_image
from detseg.factory import build_model
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import stack_images, to_float
from detseg.predict import ImageLike, Predictor
from detseg.structures import ClassTable, UInt8Array

CLASSES = ClassTable(tuple(f"class {i}" for i in range(80)))
SQUARE, PADDED = (320, 320), (256, 320)
NUM_CANDIDATES = 100
WORK = "array at 256 × 320, as the peer"


class OurSide:
    """A predictor whose calls are timed, and within them what comes before, in and after the network.

    ``folded``: batch normalisation is folded, as in every Predictor.  Candidates are counted on ``image``.
    """

    def __init__(self, image: UInt8Array, input_hw: tuple[int, int], compiled: bool = False, folded: bool = True):
        settings = {"data": {"name": "voc", "root": "x", "classes": list(CLASSES.names)}}
        torch.manual_seed(0)
        model: Any = build_model(config_from_dict(settings).model, CLASSES)
        letterbox = Letterbox.fit((image.shape[0], image.shape[1]), input_hw)
        with torch.no_grad():
            model.train()
            for _ in range(60):
                model(torch.rand(2, 3, *SQUARE))
            network: Any = Predictor(model, CLASSES, input_hw).model
            maps = network(to_float(stack_images([letterbox.apply(image)])))
            scores = model.scheme.decode(maps).scores.flatten().sort(descending=True).values
        threshold = float(scores[NUM_CANDIDATES - 1])
        model.score_threshold = min(model.score_threshold, threshold)
        begin = time.perf_counter()
        self.predictor = Predictor(model, CLASSES, input_hw, score_threshold=threshold, compile=compiled)
        if not folded:
            self.predictor.model = model.eval().to(memory_format=torch.channels_last)
        self.found = len(self.predictor(image))
        self.first_call = time.perf_counter() - begin
        self.marks: list[float] = []
        self.calls: list[list[float]] = []
        self.predictor.model.register_forward_pre_hook(lambda *_: self.marks.append(time.perf_counter()))
        self.predictor.model.register_forward_hook(lambda *_: self.marks.append(time.perf_counter()))

    def block(self, image: ImageLike, threads: int, num_calls: int) -> Block:
        """Predictions of an image; milliseconds of the middle one."""

        def work() -> float:
            torch.set_num_threads(threads)
            for _ in range(num_calls):
                self.marks = [time.perf_counter()]
                self.predictor(image)
                self.marks.append(time.perf_counter())
                self.calls.append((1000 * np.diff(self.marks)).tolist())
            return statistics.median(sum(call) for call in self.calls[-num_calls:])

        return work

    def note(self) -> str:
        """Parts, tail and what was found, of all calls since the last note."""
        calls, self.calls = np.array(self.calls), []
        pre, network, post = np.median(calls, axis=0)
        return (
            f"ours: pre {pre:.2f} + network {network:.2f} + post {post:.2f} ms, pre + post {(pre + post) / network:.1%}"
            f" of the network; p95 {np.percentile(calls.sum(axis=1), 95):.1f} ms; {self.found} found"
        )


def predictor(blocks: int = 7, small: bool = False) -> Iterator[Row]:
    """Beside the same network without folding; from an array with the threads that each side takes by itself, with two,
    and at the same input; from a file; compiled."""
    num_calls = 2 if small else 30
    path = next(p for p in sorted((DATA / "bccd" / "JPEGImages").iterdir()) if read_image(p).shape[:2] == (480, 640))
    image = read_image(path)
    square, plain = OurSide(image, SQUARE), OurSide(image, SQUARE, folded=False)
    for threads in (1, 2):
        sides = (square.block(image, threads, num_calls), plain.block(image, threads, num_calls))
        work, name = f"array at 320 × 320, threads: {threads}", "batch normalisation not folded"
        yield Row("predictor", work, name, *in_turn(*sides, blocks), "ms", 1.0, square.note())
    with tempfile.TemporaryDirectory() as folder, PeerProcess() as peer:
        array = Path(folder) / "image.npy"
        np.save(array, image)
        facts = peer.ask("load", array=str(array), jpeg=str(path), num_candidates=NUM_CANDIDATES)
        padded, own = OurSide(image, PADDED), facts["threads"]
        compiled = OurSide(image, PADDED, compiled=not small)  # it takes a minute
        cases: list[tuple[str, OurSide, str, int, float | None]] = [
            (f"array at 320 × 320, ours with 2 threads, peer with its own {own}", square, "array", own, None),
            ("array at 320 × 320", square, "array", 2, None),
            (WORK, padded, "array", 2, 1.5),
            ("JPEG at 256 × 320, as the peer", padded, "JPEG", 2, 1.5),
            (f"{WORK}, compiled (first call {compiled.first_call:.0f} s)", compiled, "array", 2, None),
        ]
        for work, ours, source, threads, target in cases:
            other = peer.block("predict", "p50", source=source, count=num_calls, threads=threads)
            times = in_turn(ours.block(path if source == "JPEG" else image, 2, num_calls), other, blocks)
            theirs = (
                f"theirs (input {facts['input']}): pre {{preprocess:.2f}} + network {{inference:.2f}} + "
                "post {postprocess:.2f} ms, p95 {p95:.1f} ms; {found:.0f} found"
            ).format(**peer.last)
            name = f"ultralytics {peer.ask('version')} yolov8n"
            yield Row("predictor", work, name, *times, "ms", target, f"{ours.note()}; {theirs}")
