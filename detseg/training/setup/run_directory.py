"""Which folder a run writes to, and which checkpoint it resumes from."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detseg.checkpoint import FOLDER, LAST, PREVIOUS, read_raw_checkpoint, run_dir_of
from detseg.errors import CheckpointError, ConfigError
from detseg.training.resume import HOW_TO_RESUME

logger = logging.getLogger("detseg")


def new_run(run_dir: Path | None, config_path: Path) -> Path:
    """The folder of a run that begins: ``run_dir`` (ConfigError: it holds a run); None: ``runs/<name of the config
    file>``, numbered if that exists."""
    if run_dir is None:
        wanted = Path("runs") / config_path.stem
        taken = max(_numbered(wanted), default=0)
        return wanted if not taken else wanted.with_name(f"{wanted.name}-{taken + 1}")
    if (run_dir / FOLDER).exists():
        raise _taken(run_dir)
    return run_dir


def claim(run_dir: Path, again: bool = False) -> None:
    """Make the folder of checkpoints, so that two runs that begin at once do not share it (ConfigError: the other was
    faster); ``again``: it may be there, of a run that was killed before it saved."""
    try:
        (run_dir / FOLDER).mkdir(parents=True, exist_ok=again)
    except FileExistsError:
        raise _taken(run_dir) from None


@contextmanager
def claimed(run_dir: Path, again: bool = False) -> Iterator[None]:
    """``claim`` the folder, and give it back where the block has saved nothing."""
    claim(run_dir, again)
    try:
        yield
    finally:
        with suppress(OSError):  # the folder of checkpoints is not empty, or there are other files beside it
            (run_dir / FOLDER).rmdir()
            run_dir.rmdir()


def _taken(run_dir: Path) -> ConfigError:
    if _last(run_dir) is not None:
        return ConfigError(f"run_dir: {run_dir} holds a run already; choose another folder, or {HOW_TO_RESUME}")
    return ConfigError(
        f"run_dir: {run_dir} belongs to a run without a checkpoint yet, running or broken off; choose another folder, "
        f"or delete it"
    )


def resumed_run(run_dir: Path | None, config_path: Path, resume: str) -> tuple[Path, Path | None]:
    """The folder of a run that is resumed, and the checkpoint.

    Args:
        run_dir: the folder that the user asked for; None: that of the checkpoint, or the latest of the config file
            that has one.
        config_path: the file that the settings came from.
        resume: ``last``: the last checkpoint of the folder; ``auto``: that, or none where there is none yet; else a
            checkpoint file (CheckpointError: there is no such one).
    """
    own = config_path.resolve().parent
    if run_dir is not None and not run_dir.exists() and (own / FOLDER).is_dir():
        raise CheckpointError(
            f"{config_path}: lies in a run directory, but says run_dir {run_dir}, which is not there; if the run was "
            f"moved, say where it goes on: run_dir={own}"
        )
    if resume not in ("last", "auto"):
        checkpoint = Path(resume)
        if not checkpoint.is_file():
            raise CheckpointError(f"{checkpoint}: no such checkpoint file")
        own = run_dir_of(checkpoint)
        if run_dir is not None and run_dir.resolve() != own.resolve() and (run_dir / FOLDER).exists():
            raise CheckpointError(
                f"{checkpoint}: belongs to {own}, but run_dir {run_dir} holds another run; leave run_dir out, or "
                f"choose a new folder"
            )
        return run_dir or own, checkpoint
    if run_dir is None:
        wanted = Path("runs") / config_path.stem
        runs = _numbered(wanted)
        latest = [runs[number] for number in sorted(runs, reverse=True)] or [wanted]
        run_dir = next((run for run in latest if _last(run) is not None), latest[0])
    found = _last(run_dir)
    if found is not None or resume == "auto":
        return run_dir, found
    raise CheckpointError(f"{run_dir / FOLDER / LAST}: no such checkpoint to resume from; name one: --resume=CKPT")


def _last(run_dir: Path) -> Path | None:
    """The checkpoint to resume from; a run that is killed between two renamings leaves the second alone."""
    files = (run_dir / FOLDER / name for name in (LAST, PREVIOUS))
    return next((file for file in files if file.is_file()), None)


def sound_checkpoint(checkpoint: Path) -> Path:
    """The last checkpoint of a run, or the one before it where that is damaged (CheckpointError: there is no other).

    The damaged file gets the name ``damaged.ckpt``: the next save would make it the previous one, in place of the only
    good one.
    """
    try:
        read_raw_checkpoint(checkpoint)
    except CheckpointError as error:
        before = checkpoint.with_name(PREVIOUS)
        if checkpoint.name != LAST or not before.is_file():
            raise
        try:
            place = read_raw_checkpoint(before)
        except CheckpointError:
            raise error from None
        aside = checkpoint.with_name("damaged.ckpt")
        with suppress(FileNotFoundError):  # another process was faster
            os.replace(checkpoint, aside)
        logger.warning(f"{error}; it is now {aside.name}; going on from {before}, step {place['global_step']}")
        return before
    return checkpoint


def _numbered(path: Path) -> dict[int, Path]:
    """``path`` as number 1 and ``path-2``, ``path-3``, ..., as far as they exist."""
    found = {1: path} if path.exists() else {}
    for beside in path.parent.glob(f"{glob.escape(path.name)}-*"):
        number = beside.name.removeprefix(f"{path.name}-")
        if number.isascii() and number.isdigit() and number[0] != "0" and number != "1":
            found[int(number)] = beside
    return found
