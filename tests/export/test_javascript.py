"""The JavaScript of docs/decode.md, in Node.js, with a canvas and a session that stand for those of a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from detseg.ops.letterbox import Letterbox
from detseg.predict.interface import preprocess
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.engines import Outputs
from detseg.predict.runtime.predictor import ExportedPredictor, as_floats
from detseg.structures import ClassTable, Float32Array
from tests.predict.networks import noise
from tests.test_docs import ROOT
from tests.test_docs_examples import blocks

HW = (64, 96)
STAND_INS = """
import { readFileSync, writeFileSync } from "node:fs";
const given = JSON.parse(readFileSync(process.argv[2]));
class OffscreenCanvas {
  constructor(width, height) {
    Object.assign(this, { width, height, data: new Uint8ClampedArray(4 * width * height) });
  }
  getContext() { return this; }
  fillRect() {
    const color = [...this.fillStyle.match(/\\d+/g).map(Number), 255];
    for (let i = 0; i < this.data.length; i++) this.data[i] = color[i % 4];
  }
  drawImage(image, left, top, width, height) {
    if (width !== image.width || height !== image.height) throw new Error("it should fit");
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < 3; c++)
          this.data[4 * ((top + y) * this.width + left + x) + c] = image.rgb[y][x][c];
  }
  getImageData() { return this; }
}
const ort = { Tensor: class { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } } };
const seen = {};
const session = {
  async run(feeds) {
    Object.assign(seen, { dims: feeds.images.dims, type: feeds.images.type, data: Array.from(feeds.images.data) });
    return {
      boxes: { data: new Float32Array(given.boxes.flat()) },
      scores: { data: new Float32Array(given.scores) },
      labels: { data: BigInt64Array.from(given.labels, BigInt) },
    };
  },
};
"""


class Given:
    """An engine of given detections, that keeps its input."""

    metadata: dict[str, str]
    name, place = "none", "cpu"

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    def __call__(self, images: Float32Array, score_threshold: float | None = None) -> Outputs:
        return self.outputs


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_page_decodes_as_we_do(tmp_path: Path) -> None:
    """Boxes inside, over the border, in the padding alone, and one below the threshold."""
    boxes = np.array([[30, 5, 60, 40], [10, 50, 40, 70], [0, 0, 20, 60], [25, 1, 26, 63], [40, 2, 50, 30]], np.float32)
    scores, labels = np.array([0.5, 0.9, 0.8, 0.2, 0.31], np.float32), np.array([1, 0, 2, 2, 1])
    image = noise(HW[0], 50)  # fits as it is: how a browser scales is its own affair
    outputs = {"boxes": boxes, "scores": scores, "labels": labels}
    (listing,) = [text for _, text in blocks((ROOT / "docs" / "decode.md").read_text(encoding="utf-8"), "js")]
    first, rest = listing.split("\n", 1)
    assert first.startswith("import * as ort")
    given = {name: values.tolist() for name, values in outputs.items()} | {"rgb": image.tolist()}
    (tmp_path / "given.json").write_text(json.dumps(given))
    call = (
        "const image = { width: 50, height: 64, rgb: given.rgb };\n"
        "const found = await detect(session, image, { width: 96, height: 64 }, 0.3);\n"
        "writeFileSync(process.argv[3], JSON.stringify({ found, seen }));\n"
    )
    (tmp_path / "page.mjs").write_text(STAND_INS + rest + call)
    files = [str(tmp_path / name) for name in ("page.mjs", "given.json", "found.json")]
    subprocess.run(["node", *files], check=True, timeout=60)
    said = json.loads(Path(files[2]).read_text())

    (stacked, (letterbox,)) = preprocess([image], HW)
    assert letterbox == Letterbox((64, 50), HW, (64, 50), 0, 23)
    assert (said["seen"]["type"], said["seen"]["dims"]) == ("float32", [1, 3, *HW])
    np.testing.assert_allclose(np.reshape(said["seen"]["data"], (1, 3, *HW)), as_floats(stacked), atol=1e-7)
    classes, limits = ClassTable(("a", "b", "c")), {"nms": True, "max_detections": 300}
    description = Description("detection", "yolo", classes, HW, None, False, 32, **limits)  # type: ignore[arg-type]  # of its fields
    expected = ExportedPredictor(Given(outputs), description, 0.3)(image)
    assert expected.labels.tolist() == [0, 1, 1]  # that at the left lies in the padding
    assert [one["label"] for one in said["found"]] == expected.labels.tolist()
    np.testing.assert_allclose([one["score"] for one in said["found"]], expected.scores)
    np.testing.assert_allclose([one["box"] for one in said["found"]], expected.boxes, atol=1e-4)
