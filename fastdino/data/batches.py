"""What prepares batches for the loader, and the two ways of doing it: C++ threads, or Pillow in processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import torch

from fastdino import native
from fastdino.data.plan import CropRecipe
from fastdino.data.sources import Source

Output = Literal["float32", "bfloat16", "uint8"]
DTYPES: dict[Output, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
}

Batch = tuple[list[torch.Tensor], torch.Tensor]
"""Crops in the order g1, g2, l1 ... ln, each (batch, 3, size, size), and labels, int64 (batch,), -1 for none."""


_open_lock = threading.Lock()
_exiting = threading.Event()


@contextmanager
def opening() -> Iterator[None]:
    """Around the start of threads, which nobody would end any more once the interpreter exits: RuntimeError then."""
    with _open_lock:
        if _exiting.is_set():
            raise RuntimeError("the interpreter is exiting: there are no more batches")
        yield


def forbid_opening() -> None:
    """What was opened before this returns can be closed; nothing opens afterwards."""
    _exiting.set()
    # In the child of a fork, the thread that holds the lock may not exist.
    if _open_lock.acquire(timeout=1):
        _open_lock.release()


class BatchSettings(NamedTuple):
    """What is fixed for the life of a loader."""

    source: Source
    recipe: CropRecipe
    batch_size: int
    seed: int
    threads: int
    output: Output
    rank: int
    world_size: int

    def batches(self) -> int:
        """Whole global batches of an epoch."""
        return len(self.source) // (self.batch_size * self.world_size)

    def first_position(self, batch: int) -> int:
        """Where in the epoch this rank's part of a global batch begins."""
        return (batch * self.world_size + self.rank) * self.batch_size


class Batches(Protocol):
    """Prepares batches ahead of the one that is taken, on the assumption that the next ones follow it."""

    name: str
    """For the log: what prepares them, and on what."""

    def take(self, epoch: int, batch: int) -> tuple[Batch, dict[str, str]]:
        """The batch, and the pictures passed over in it: name -> reason.

        Raises UserError when not one picture of the source can be read.
        """
        ...

    def stats(self) -> dict[str, float]:
        """Seconds of all threads together by stage."""
        ...

    def close(self) -> None:
        """End what runs. `take` starts it anew."""
        ...


def make_batches(settings: BatchSettings, implementation: Literal["auto", "native", "reference"]) -> Batches:
    """Raises RuntimeError when "native" is asked for and the extension is missing."""
    # Each brings what it is built on along.
    if implementation == "native" or (implementation == "auto" and native.available()):
        from fastdino.data.native_batches import NativeBatches

        return NativeBatches(settings)
    from fastdino.data.reference_batches import ReferenceBatches

    return ReferenceBatches(settings)


def nothing_readable(source: Source, skipped: dict[str, str]) -> str:
    """The sentence that ends a training on a source of which no picture can be read."""
    name, reason = next(iter(skipped.items()))
    return f"None of the {len(source)} pictures can be read, the first of them ({name}) for this reason: {reason}."


def unexpected(source: Source, index: int, error: BaseException) -> RuntimeError:
    """What a source's `read` raised and should not have, with the picture's name."""
    return RuntimeError(f"{source.name(index)}: {type(error).__name__}: {error}")


def counted(number: int, noun: str) -> str:
    """`1 thread`, `2 threads`, `2 processes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"
