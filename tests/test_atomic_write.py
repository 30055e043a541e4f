"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from detseg.atomic_write import atomic_write


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write("half")
        assert not path.exists()
        file.write(" and whole")
    assert path.read_text(encoding="utf-8") == "half and whole"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("no"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_what_fails_half_way_leaves_the_file_of_before_and_nothing_else(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    if isinstance(caught.value, OSError):  # by which the tools say it in one line
        assert (caught.value.filename, caught.value.strerror) == (str(path), "No space left on device")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.txt"]
