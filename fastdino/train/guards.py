"""What may interrupt a run from outside, turned into one sentence or a clean stop."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from fastdino.errors import UserError

UNWRITABLE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Make SIGTERM (a scheduler's polite stop) end the run as Ctrl-C does: KeyboardInterrupt(15)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def explained_failures(output_dir: Path) -> Iterator[None]:
    """A full or read-only disk and exhausted GPU memory as a UserError with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise UserError(
            f"cannot write to {output_dir} ({error.strerror}): free or unlock it, or choose another --output_dir; "
            f"checkpoints that are there are whole"
        ) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the GPU's memory is too small for this batch: halve --batch_size_per_gpu and double --accumulation_steps"
        ) from error
