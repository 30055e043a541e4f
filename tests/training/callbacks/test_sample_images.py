"""Sample pictures: nothing is lost in silence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.draw import write_picture
from detseg.errors import DataError


def test_pictures_are_written_as_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    write_picture(tmp_path / "new" / "a.png", red)
    written = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert written is not None
    assert written[0, 0].tolist() == [0, 0, 255]  # OpenCV reads blue first


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match=r"a\.png: the picture could not be written \(Is a directory\); is there space"):
        write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), dtype=np.uint8))
