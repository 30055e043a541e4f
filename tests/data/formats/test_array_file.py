"""Files of arrays: read as safetensors reads them, and refused where a byte is another one."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from detseg.data.formats.array_file import read_arrays, write_arrays

CONTENT = {"names": ["é", "\x1b"], "number": 1}


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        "flags": rng.random(7) < 0.5,
        "bytes": rng.integers(0, 256, 11, dtype=np.uint8),
        "boxes": rng.random((5, 4)),
        "ids": rng.integers(-9, 9, (3, 2)),
        "small": rng.integers(-9, 9, 3, dtype=np.int32),
        "none": np.zeros((0, 4)),
    }


def test_what_is_written_is_read_and_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_arrays(path, arrays(), CONTENT)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    other = load_file(path)
    for verify in (True, False):
        found, content = read_arrays(path, verify)
        assert content == CONTENT
        for name, array in arrays().items():
            np.testing.assert_array_equal(found[name], array)
            np.testing.assert_array_equal(other[name], array)
            assert found[name].dtype == array.dtype
            assert not found[name].flags.writeable


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_arrays(path, arrays(), CONTENT)
    good = path.read_bytes()
    for place in range(len(good)):
        if good[place] == ord(" ") and place > 8:
            continue  # between two words of JSON: other white space says the same
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ValueError, match=r"."):
            read_arrays(path)
    for length in range(0, len(good), 13):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match=r"."):
            read_arrays(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match="checksum"):
        read_arrays(path)


@pytest.mark.parametrize(
    "header", [[], {}, {"__metadata__": {}}, {"__metadata__": {"sha256": 1, "content": 2}, "a": 3}, None, "x"]
)
def test_other_headers_are_refused(header: Any, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text)
    for verify in (True, False):
        if not verify and header == {"__metadata__": {}}:
            continue
        with pytest.raises(ValueError, match=r"."):
            read_arrays(tmp_path / "a", verify)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="files of others can be made by root alone")
def test_files_of_other_users_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_arrays(path, arrays(), CONTENT)
    os.chown(path, 12345, -1)
    with pytest.raises(ValueError, match="another user"):
        read_arrays(path)


def test_several_writers_and_readers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_arrays(path, arrays(), CONTENT)

    def work(number: int) -> bool:
        if number % 2:
            write_arrays(path, arrays(), CONTENT)
        return read_arrays(path)[1] == CONTENT

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(100)))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_arrays(tmp_path / "a", arrays(), {"number": object()})
    with pytest.raises(OSError, match=r"."):
        write_arrays(tmp_path / "gone" / "a", arrays(), CONTENT)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"."):
        write_arrays(tmp_path / "folder", arrays(), CONTENT)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
