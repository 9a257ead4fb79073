"""Checkpoints written while training goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdino.models.weights import save_weights

NAME = "checkpoint.pth"
# Bytes; no running statistics are as large, and no weights that matter for the time are smaller.
SMALL = 1 << 20
UNPUBLISHED = "checkpoint.next.pth"


class CheckpointWriter:
    """Writes one checkpoint at a time, from a copy in host memory, in a thread of its own.

    Forward and backward passes leave weights and moments alone, so the thread copies them in that time; only
    `wait_for_copy`, to be called before they move, holds training up.

    The newest is `checkpoint.pth`; the `keep` - 1 before it are `checkpoint.1.pth` (the last but one) and so on.
    `stalled` and `writing` add up the seconds for which `start` and `wait_for_copy` held their callers up, and those
    for which the thread worked.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.stalled = self.writing = 0.0
        self._copy = HostCopy()
        self._copied = threading.Event()
        self._copied.set()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def pending(self) -> bool:
        """Whether `finish` has something to wait for or to raise."""
        return self._thread is not None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, content: Mapping[str, Any], also: Path | None = None) -> None:
        """Write `content` in the background; `also` is a second name that the file keeps for good.

        What is small is copied at once, since running statistics move in a forward pass; the rest must stay as it is
        until `wait_for_copy` returns. Waits for the write before this one. Raises that one's error, as `finish` does.
        """
        self.finish()
        started = time.perf_counter()
        copied = self._copy.of(content)
        self._copied.clear()
        # Not a daemon: an interpreter that exits waits for it.
        self._thread = threading.Thread(target=self._write, args=(copied, also), name="checkpoint writer")
        self._thread.start()
        self.stalled += time.perf_counter() - started

    def wait_for_copy(self) -> None:
        """Until what was given to `start` may change."""
        started = time.perf_counter()
        self._copied.wait()
        self.stalled += time.perf_counter() - started

    def finish(self) -> None:
        """Wait until the file is there. Raises what its writing raised, such as OSError for a full disk."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, content: Mapping[str, Any], also: Path | None) -> None:
        started = time.perf_counter()
        try:
            try:
                self._copy.complete()
            finally:
                self._copied.set()
            # A folder that was removed is made again; its parents may be a disk that is not mounted now.
            self.folder.mkdir(exist_ok=True)
            unpublished = self.folder / UNPUBLISHED
            save_weights(content, unpublished)
            if also is not None:
                _link(unpublished, also)
            rotate(self.folder, self.keep)
            unpublished.replace(self.folder / NAME)
        except Exception as error:
            self._error = error
        self.writing += time.perf_counter() - started


class HostCopy:
    """A copy of nested dicts and lists of tensors, in memory that is used again for the next one."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._left: list[tuple[Tensor, Tensor]] = []
        self._on_gpu: torch.cuda.Event | None = None

    def of(self, content: Any) -> Any:
        """`content` with every tensor on the host, which holds its values after `complete` and until the next call."""
        self._left = []
        copied = self._copied(content, ())
        if torch.cuda.is_available():
            # The GPU copies in its own order of work: nothing that is asked of it later can change the values.
            self._on_gpu = torch.cuda.Event()
            self._on_gpu.record()
        return copied

    def complete(self) -> None:
        """Copy what `of` left; in any thread."""
        for buffer, value in self._left:
            buffer.copy_(value)
        self._left = []
        if self._on_gpu is not None:
            self._on_gpu.synchronize()

    def _copied(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
                self._buffers[place] = buffer
            if value.is_cuda or value.nbytes < SMALL:
                buffer.copy_(value.detach(), non_blocking=True)
            else:
                self._left.append((buffer, value.detach()))
            return buffer
        if isinstance(value, Mapping):
            return {key: self._copied(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._copied(item, (*place, i)) for i, item in enumerate(value)]
        return value


def earlier(folder: Path, age: int) -> Path:
    """The checkpoint `age` before the newest."""
    return folder / (f"checkpoint.{age}.pth" if age else NAME)


def kept(folder: Path) -> list[Path]:
    """The checkpoints that are there, the newest first."""
    older = sorted(folder.glob("checkpoint.[0-9]*.pth"), key=lambda path: int(path.suffixes[0][1:]))
    return [path for path in (folder / NAME, *older) if path.exists()]


def rotate(folder: Path, keep: int) -> None:
    """Make room for another `checkpoint.pth`, which stays where it is until it is replaced."""
    for age in range(keep - 1, 1, -1):
        if earlier(folder, age - 1).exists():
            earlier(folder, age - 1).replace(earlier(folder, age))
    if keep > 1 and (folder / NAME).exists():
        _link(folder / NAME, earlier(folder, 1))


def remove_unfinished(folder: Path) -> None:
    """What a killed process was writing when it died."""
    for unfinished in (*folder.glob(".checkpoint*.pth.*.tmp"), folder / UNPUBLISHED):
        unfinished.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Another name for a file, or a copy where the file system has no such thing."""
    temporary = target.with_name(f".{target.name}.link.tmp")
    temporary.unlink(missing_ok=True)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(temporary.unlink, missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
