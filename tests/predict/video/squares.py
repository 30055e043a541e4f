"""A video of two squares that move past each other, and a network that finds them by their colours."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from detseg.predict import Predictor
from detseg.structures import ClassTable, DetectorOutput, UInt8Array

HW = (96, 128)
FPS = 20.0
CLASSES = ClassTable(("red", "blue"), (3, 7))


def corners(number: int) -> tuple[int, int]:
    """The left edges of the red and of the blue square, 20 pixels wide and high, in a frame."""
    return 4 + 4 * number, 104 - 4 * number


def square_frame(number: int) -> UInt8Array:
    """RGB: red from row 20, blue from row 56."""
    frame = np.full((*HW, 3), 40, dtype=np.uint8)
    red, blue = corners(number)
    frame[20:40, red : red + 20] = (255, 0, 0)
    frame[56:76, blue : blue + 20] = (0, 0, 255)
    return frame


def write_video(path: Path, frames: list[UInt8Array], code: str = "mp4v") -> Path:
    height, width, _ = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), FPS, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_squares(path: Path, num: int = 24, code: str = "mp4v") -> Path:
    return write_video(path, [square_frame(i) for i in range(num)], code)


def turned(path: Path) -> Path:
    """A copy whose header says that it is to be shown turned by 90 degrees, clockwise."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12: version 0, 40 bytes before it
    width = struct.unpack_from(">I", data, matrix + 36)[0]
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, width, 0, 1 << 30)
    target = path.with_name(f"turned_{path.name}")
    target.write_bytes(data)
    return target


def with_durations(path: Path, runs: list[tuple[int, int]]) -> Path:
    """A copy in which runs of frames have other durations, in ticks: the box ``stts`` of an MP4 that is written last,
    and the sizes of all boxes that it lies in. Its edit list, which states the old duration, becomes free space."""
    data = path.read_bytes().replace(b"edts", b"free")
    at = data.index(b"stts")
    (old,) = struct.unpack_from(">I", data, at - 4)
    entries = b"".join(struct.pack(">II", *run) for run in runs)
    box = struct.pack(">I4sII", 16 + len(entries), b"stts", 0, len(runs)) + entries
    changed = bytearray(data[: at - 4] + box + data[at - 4 + old :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = changed.index(name) - 4
        (size,) = struct.unpack_from(">I", changed, place)
        struct.pack_into(">I", changed, place, size + len(box) - old)
    target = path.with_name(f"uneven_{path.name}")
    target.write_bytes(changed)
    return target


class Squares(nn.Module):
    """Finds what is red and what is blue in (B, 3, H, W) RGB in [0, 1]; scores 0.9."""

    def predict(self, images: Tensor) -> list[DetectorOutput]:
        outputs = []
        for image in images:
            boxes, labels = list[Any](), list[int]()
            for label, (high, low) in enumerate(((0, 2), (2, 0))):
                rows, columns = torch.nonzero((image[high] > 0.7) & (image[low] < 0.4), as_tuple=True)
                if len(rows) > 30:
                    boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    labels.append(label)
            found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            outputs.append(
                DetectorOutput(found, torch.full((len(found),), 0.9), torch.tensor(labels, dtype=torch.int64))
            )
        return outputs


def predictor(network: nn.Module | None = None) -> Predictor:
    return Predictor((network or Squares()).eval(), CLASSES, HW)
