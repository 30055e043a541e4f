"""Pictures that declare more than memory holds are refused by their header, whoever reads them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import pytest
from PIL import ImageFile

from detseg.cli import predict
from detseg.data.images.label_maps import read_mask
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.read import read_image, read_image_hw
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.predict.networks import write_unet
from tests.security.hostile import png_that_declares


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PNG of four gigapixels, in a process without decoders."""
    path = tmp_path / "pictures" / "bomb.png"
    path.parent.mkdir()
    path.write_bytes(png_that_declares(65536, 65536))
    monkeypatch.setattr(cv2, "imdecode", None)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    return path


def test_four_gigapixels_are_refused_before_anything_is_decoded(bomb: Path) -> None:
    encoding = MaskEncoding(ClassTable(("a", "b")), None, 255)
    tracemalloc.start()
    for read in (read_image, read_image_hw, lambda path: read_mask(path, encoding)):
        with pytest.raises(DataError, match=rf"^{bomb}: .*bomb"):
            read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.filterwarnings("ignore")
def test_predict_leaves_it_out_and_says_so(bomb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_unet(tmp_path / "unet.ckpt")
    code, message = said(predict, [str(checkpoint), str(bomb.parent), "--out", str(tmp_path / "out")], capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: 1 of 1 images were left out: {bomb}: ")
