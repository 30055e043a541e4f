"""Unpacks a tar archive of files and folders, and nothing of an archive that holds anything else.

Names that lead out of the folder, links, devices and sparse files are refused before a byte is written; what is written
goes through the ``data`` filter of Python's tarfile (PEP 706) as well.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PureWindowsPath

from detseg.data.class_names import printable
from detseg.errors import DataError, one_line


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack an uncompressed tar archive.

    Args:
        archive: the file.
        folder: where to; made if it is not there.

    Raises:
        DataError: it is no such archive, is damaged, holds what is not to be unpacked, or Python is too old for it.
        OSError: a file could not be written.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"{archive}: archives are unpacked by Python 3.11.4 or newer; update it, or unpack it yourself")
    try:
        with tarfile.open(archive, "r:") as tar:
            members = tar.getmembers()
            for member in members:
                _check(archive, member)
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, UnicodeError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive}: not a tar archive that can be unpacked ({one_line(error)})") from None


def _check(archive: Path, member: tarfile.TarInfo) -> None:
    """Refuse what is neither a plain file nor a folder, and names that lead elsewhere."""
    name = PureWindowsPath(member.name)  # knows drives and both slashes
    if name.drive or name.root or ".." in name.parts or not name.parts or "\0" in member.name:
        raise DataError(f"{archive}: the entry {printable(member.name)} leads out of the folder; nothing was unpacked")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise DataError(
            f"{archive}: the entry {printable(member.name)} is a link, a device or a sparse file, expected files and "
            "folders only; nothing was unpacked"
        )
