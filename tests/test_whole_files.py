"""A file is there as a whole, or as it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.whole_files import written_whole


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    with written_whole(path, "w", encoding="utf-8", newline="") as file:
        file.write("é\r\n")
        assert not path.exists()
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    assert list(path.parent.iterdir()) == [path]


def write_half(path: Path, error: BaseException) -> None:
    """Fails on the way."""
    with written_whole(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("x"), KeyboardInterrupt()])
def test_what_was_there_stays_when_it_fails(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
