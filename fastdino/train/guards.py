"""What may interrupt a run from outside, turned into one sentence or a clean stop."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

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


# What the C++ allocator of CPU tensors says, in a plain RuntimeError.
CPU_OUT_OF_MEMORY = "you tried to allocate"


class MicroBatchTooLarge(Exception):
    """Memory ran out before a step moved anything."""


class Signals:
    """Signals as requests that the loop looks at between two steps.

    SIGINT (Ctrl-C) and the `stopping` ones (SIGTERM: a scheduler's polite stop) ask for a stop, the `saving` ones for a
    checkpoint. Outside `polite`, and when they come a second time, the first raise KeyboardInterrupt(number) at once.
    """

    def __init__(
        self, stopping: tuple[int, ...] = (signal.SIGTERM,), saving: tuple[int, ...] = (signal.SIGUSR1,)
    ) -> None:
        self._handlers: dict[int, Any] = {
            **{number: self._stop for number in stopping},
            **{number: self._save for number in saving},
        }
        self.stop = 0
        self.save = False
        self._polite = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Within it the signals come here; only the main thread can have them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = dict(self._handlers)
        # A background job of a shell has Ctrl-C ignored, and stays so.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            handlers[signal.SIGINT] = self._stop
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def polite(self) -> Iterator[None]:
        """Within it a first signal waits for the end of the step."""
        self._polite = True
        try:
            yield
        finally:
            self._polite = False

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._polite or self.stop:
            raise KeyboardInterrupt(number)
        self.stop = number

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True


class Tolerated:
    """Files that cannot be written while training: said once each, remembered until writing them works again."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failing: dict[str, OSError] = {}

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Around an attempt to write `name`; OSError for a disk that is full, locked or gone does not leave it.

        What is called `name/` is a folder of files for people, without which a run is still whole.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            if name not in self.failing:
                self.console.print(
                    f"[yellow]note:[/] cannot write {name} ({error.strerror}): training goes on and tries again at "
                    f"each later save",
                    highlight=False,
                    soft_wrap=True,
                )
            self.failing[name] = error
        else:
            self.wrote(name)

    def wrote(self, name: str) -> None:
        """It could be written."""
        if self.failing.pop(name, None) is not None:
            self.console.print(f"[yellow]note:[/] {name} could be written again", highlight=False, soft_wrap=True)

    def require_none(self) -> None:
        """Raises the error of a file that could not be written to the end."""
        for name, error in self.failing.items():
            if not name.endswith("/"):
                raise error


@contextlib.contextmanager
def memory_shortage_as(kind: type[Exception]) -> Iterator[None]:
    """Exhausted memory of a GPU or the host as an exception of `kind`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise kind(str(error)) from error
    except RuntimeError as error:
        if CPU_OUT_OF_MEMORY not in str(error):
            raise
        raise kind(str(error)) from error


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
    except (MicroBatchTooLarge, torch.OutOfMemoryError) as error:
        raise UserError(
            "memory is too small for this batch, even for half of it at a time: halve --batch_size_per_gpu and double "
            "--accumulation_steps until `fastdino plan`, given the same flags, says that it fits"
        ) from error
