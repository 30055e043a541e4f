"""The journal of a run over files: JSON lines, one an image, whole after each; and how several processes share a run.

The first line says what made the results. A process that is killed leaves at most one line torn, which counts for
nothing. Each of several processes appends to a file of its own, and the first one, which waits for the others, joins
them in the order of the images: what it reads then is the same whoever predicted what, and when.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from detseg.atomic_write import atomic_write, write_errors
from detseg.errors import ConfigError, DataError, DetsegError
from detseg.messages import counted, listed
from detseg.predict.outputs.header import check_settings, header_line, read_header
from detseg.predict.outputs.output import Entry, ImageFile, remove_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # where there is none

logger = logging.getLogger("detseg")

JOURNAL = "results.jsonl"
_PART = re.compile(r"results\.[0-9]+\.jsonl")  # of one of several processes
_BEATS = 10  # signs of life in the patience of a share
_POLL = 0.2  # seconds between two looks at the journals of others


@dataclass(frozen=True)
class Share:
    """The part of one process in a run: whole batches in turn, so that a batch has the same images as in one process.

    Attributes:
        rank: of this process, from 0; the first one writes the files of all.
        num: processes.
        patience: seconds without a sign of life after which the first process takes another one for dead.
    """

    rank: int = 0
    num: int = 1
    patience: float = 120.0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num:
            raise ConfigError(
                f"RANK: expected 0 to {self.num - 1}, of WORLD_SIZE={self.num} processes, got {self.rank}"
            )


class Journal:
    """The results of a run in ``out``; a context, in which they are appended.

    Args:
        out: the folder.
        images: all images of the run, of all processes.
        settings: what the results depend on, ready for JSON; a journal of others is not resumed.
        share: of this process.
        batch_size: images that a process takes at a time.
        is_made: whether the files that were written with the result of an image, of an entry, are there and may stay;
            if not, it is predicted again. Any of the errors of wrong values: the entry was changed by hand.
    """

    def __init__(
        self,
        out: Path,
        images: Sequence[ImageFile],
        settings: dict[str, Any],
        share: Share,
        batch_size: int,
        is_made: Callable[[ImageFile, Entry], bool],
    ) -> None:
        names = "\n".join(image.name.as_posix() for image in images).encode("utf-8", "surrogatepass")
        of_images = {"images": f"{len(images)} of names {hashlib.sha256(names).hexdigest()[:16]}"}
        self.path = out / JOURNAL
        self._own = self.path if share.num == 1 else _part(out, share.rank)
        self._out, self._images, self._share, self._batch_size, self._is_made = out, images, share, batch_size, is_made
        self._settings = settings | of_images
        self._lines: dict[int, tuple[Path, int]] = {}  # number of the image → where its line begins
        self._errors: dict[int, str] = {}
        self._checksums: dict[int, int | None] = {}  # of the images of these lines
        self._read: dict[Path, int] = {}  # bytes that are read of each file
        self._file: IO[bytes] | None = None
        self._ended = threading.Event()

    def open(self, resume: bool, overwrite: bool, replaced: Sequence[Path] = ()) -> None:
        """Begin the journal, or resume what is there.

        Args:
            resume: go on with an earlier run, if there is one.
            overwrite: replace one, if it is not resumed.
            replaced: files of an earlier run that this process will write, and which go before it begins: whatever is
                there when a run is resumed was then written by it, or by a person.

        Raises:
            DataError: there is one, and it is not to be resumed or replaced; it was made with other settings; a file of
                this name is something else, or another process is writing to it; it could not be written.
        """
        # Without resuming, another one of several processes may have begun already.
        there = [path for path in self._files() if resume or self._share.num == 1 or self._is_of_earlier_run(path)]
        for path in there:
            header, has_results = read_header(path)
            if has_results and not resume and (self._share.num > 1 or not overwrite):
                raise self._earlier_run(path)
            if header is not None and resume and (has_results or path == self._own):
                check_settings(path, header, self._settings)
        with write_errors(self._own):
            self._file = self._own.open("ab")
        _lock(self._file, self._own)
        self._check_others()
        if resume:
            self._scan()
            self._forget()
            if self._share.num == 1:
                self._errors.clear()  # what could not be read may have been repaired
        else:
            remove_files([*replaced, *(self._parts() if self._share.num == 1 else ())])
        has_begun = bool(self._read.get(self._own, 0))
        if self._share.rank > 0 and not has_begun and all(map(self.has, self.own_images)):
            self.close()  # the first process, which joins the files, may have ended already
            self._own.unlink()
            return
        with write_errors(self._own):
            self._file.truncate(self._read.get(self._own, 0))
            self._file.seek(0, os.SEEK_END)  # or tell() would count what was cut off
            if not has_begun:
                self._append(header_line(self._settings))
        if self._share.num > 1:
            threading.Thread(target=self._show_life, daemon=True).start()

    def exists(self) -> bool:
        """Whether there is one already, of any process."""
        return bool(self._files())

    @property
    def own_images(self) -> list[ImageFile]:
        """Those of this process."""
        return [image for image in self._images if self._rank_of(image) == self._share.rank]

    def _files(self) -> list[Path]:
        """Those that are there; the joined one last, so that what moves to it meanwhile is read."""
        return [path for path in (*self._parts(), self.path) if path.is_file()]

    def _parts(self) -> list[Path]:
        return sorted(path for path in self._out.glob("results.*.jsonl") if _PART.fullmatch(path.name))

    def _is_of_earlier_run(self, path: Path) -> bool:
        if self._share.rank > 0:
            return path in (self.path, self._own)
        return path not in {_part(self._out, rank) for rank in range(1, self._share.num)}

    def _earlier_run(self, path: Path) -> DataError:
        fix = "replace it with --overwrite"
        if self._share.num > 1:
            fix = "remove it (--overwrite is for one process: several do not know whose it is)"
        what = f"{path}: holds results of an earlier run"
        return DataError(f"{what}; resume that with --resume, {fix}, or choose another --out")

    def _check_others(self) -> None:
        """DataError: several processes are at work and this one is no part of them, or a single one is, and this one is
        a part of several."""
        is_alone = self._share.num == 1
        for path in self._parts() if is_alone else [self.path]:
            with suppress(OSError), path.open("r+b") as file:
                _lock(file, path, is_shared=not is_alone)  # all parts look at the same file

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the appending."""
        self._ended.set()
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which was said before
                self._file.close()

    @property
    def num_done(self) -> int:
        """Images whose result is known to this process, or that could not be read."""
        return len(self._lines) + len(self._errors)

    @property
    def errors(self) -> list[str]:
        """Why images could not be read, in their order."""
        return [self._errors[number] for number in sorted(self._errors)]

    def has(self, image: ImageFile) -> bool:
        """Whether an image is done."""
        return image.number in self._lines or image.number in self._errors

    def add(self, image: ImageFile, entry: Entry) -> None:
        """Append the result of an image. DataError: it could not be written."""
        head = {"number": image.number, "file_name": image.name.as_posix(), "crc32": image.checksum}
        start = self._append(_line(head | entry))
        self._lines[image.number] = self._own, start

    def add_error(self, image: ImageFile, error: DataError) -> None:
        """Append why an image cannot be read. DataError: as of ``add``."""
        self._append(_line({"number": image.number, "file_name": image.name.as_posix(), "error": str(error)}))
        self._errors[image.number] = str(error)

    def _append(self, line: bytes) -> int:
        assert self._file is not None
        with write_errors(self._own):
            start = self._file.tell()
            self._file.write(line)
            self._file.flush()
        self._read[self._own] = self._file.tell()
        return start

    def entries(self) -> Iterator[tuple[ImageFile, Entry]]:
        """The results so far of all processes, in the order of the images."""
        for number, line in self._sorted_lines():
            entry = json.loads(line)
            del entry["number"], entry["file_name"], entry["crc32"]
            yield self._images[number - 1], entry

    def _sorted_lines(self) -> Iterator[tuple[int, bytes]]:
        with ExitStack() as stack:
            files = {path: stack.enter_context(path.open("rb")) for path in {path for path, _ in self._lines.values()}}
            for number, (path, start) in sorted(self._lines.items()):
                files[path].seek(start)
                yield number, files[path].readline()

    def wait(self) -> None:
        """Until all images of all processes are done. DetsegError: a process died, or has never begun."""
        seen: dict[int, tuple[float, float]] = {}  # rank → its last sign of life, and when it was seen here
        while True:
            self._scan()
            missing = {self._rank_of(image) for image in self._images if not self.has(image)}
            for rank in missing:
                try:
                    sign = _part(self._out, rank).stat().st_mtime
                except OSError:
                    sign = 0.0
                if rank not in seen or seen[rank][0] != sign:
                    seen[rank] = sign, time.monotonic()
                elif time.monotonic() - seen[rank][1] > self._share.patience:
                    what = f"process {rank} of {self._share.num} has died or has not begun"
                    raise DetsegError(
                        f"{what}: no sign of life for {self._share.patience:g} seconds; {self.progress()}"
                    )
            if not missing:
                return
            time.sleep(_POLL)

    def refresh(self) -> None:
        """Read what other processes have done meanwhile."""
        if self._share.num > 1:
            self._scan()

    def progress(self) -> str:
        """How far the run is, and how to get on, for messages."""
        what = f"{self.num_done} of {counted(len(self._images), 'image')} are in {self._out}"
        return f"{what}; the same command with --resume does the others"

    def finish(self) -> None:
        """Join all files to one, in the order of the images and without those that could not be read."""
        self.close()
        with write_errors(self.path), atomic_write(self.path) as file:
            file.write(header_line(self._settings))
            for _, line in self._sorted_lines():
                file.write(line)
        for path in self._parts():
            path.unlink()

    def _rank_of(self, image: ImageFile) -> int:
        return (image.number - 1) // self._batch_size % self._share.num

    def _scan(self) -> None:
        """Read what is new in all files."""
        for path in self._files():
            with suppress(FileNotFoundError), path.open("rb") as file:
                start = self._read.get(path, 0)
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):  # torn, or being written
                        break
                    if start:  # the first one is the header
                        self._take(path, start, line)
                    start += len(line)
                self._read[path] = start

    def _take(self, path: Path, start: int, line: bytes) -> None:
        try:
            content = json.loads(line)
            number, _ = content["number"], "error" in content or content["crc32"]
            image = self._images[number - 1]
            is_ours = (image.number, image.name.as_posix()) == (number, content["file_name"])
        except (ValueError, KeyError, TypeError, IndexError):
            is_ours = False
        if not is_ours:
            raise _damaged(path, start)
        if "error" in content:
            self._errors[number] = content["error"]
        else:
            self._lines[number], self._checksums[number] = (path, start), content["crc32"]
            self._errors.pop(number, None)

    def _forget(self) -> None:
        """Results of files that are others now, under the same names, are not taken for theirs; and results count for
        nothing where what was written with them is gone."""
        changed, gone = list[int](), list[int]()
        for number, line in self._sorted_lines():
            image = self._images[number - 1]
            try:
                is_made = self._is_made(image, json.loads(line))
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise _damaged(*self._lines[number]) from error
            known, now = self._checksums[number], image.checksum
            if None not in (known, now) and known != now:  # what cannot be read is not known to be another one
                changed.append(number)
            elif not is_made:
                gone.append(number)
        self._predict_again(changed, "changed after their results")
        self._predict_again(gone, "their drawn copies or masks are gone, or changed and to be replaced")

    def _predict_again(self, numbers: Sequence[int], reason: str) -> None:
        for number in numbers:
            del self._lines[number]
        if numbers:
            names = listed([str(self._images[number - 1].path) for number in sorted(numbers)])
            logger.warning(f"predicted again, since {reason}: {names}")

    def _show_life(self) -> None:
        while not self._ended.wait(self._share.patience / _BEATS):
            with suppress(OSError):
                os.utime(self._own)


def _lock(file: IO[bytes], path: Path, is_shared: bool = False) -> None:
    """Keep other processes from writing to a journal until it is closed; ``is_shared``: others may do so, too.
    DataError: one of them is writing to it."""
    if fcntl is None:  # on Windows
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(
            f"{path}: another process is writing its results here; wait for it, or choose another --out"
        ) from None
    except OSError:  # the file system has no locks
        return


def _part(out: Path, rank: int) -> Path:
    return out / f"results.{rank}.jsonl"


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode("ascii") + b"\n"


def _damaged(path: Path, start: int) -> DataError:
    what = f"{path}: the line that begins at byte {start} is damaged"
    return DataError(f"{what}; take --overwrite in place of --resume, or choose another --out")
