"""Batches of crops for training, prepared by Pillow in worker processes."""

from __future__ import annotations

import atexit
import math
import os
import signal
import time
import weakref
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from fastdino.cores import usable_cores
from fastdino.data.normalize import normalize
from fastdino.data.order import EpochOrder
from fastdino.data.plan import CropRecipe
from fastdino.data.sources import FolderSource, Source
from fastdino.data.worker import Chunk, ChunkMaker, Task, as_it_is, start_worker
from fastdino.errors import UserError

# Pictures that a worker prepares at a time: 8 MB of crops. Whole batches would make the first one wait for a
# single worker, and memory grow with workers times batch size.
_CHUNK = 16


_loaders: weakref.WeakSet[MultiCropLoader] = weakref.WeakSet()


class MultiCropLoader:
    """Batches of augmented crops of a folder's pictures, or of any `Source`'s.

    Iterating yields (crops, labels): the crops in the order g1, g2, l1 ... ln, each (batch, 3, size, size),
    float32 and normalised or uint8; labels int64 (batch,), -1 for none. One iteration is the rest of the
    current epoch; the next one continues with the following epoch, or with the one given to `set_epoch`. An
    epoch has as many whole global batches as there are pictures for; rank r of W takes the r-th part of each,
    so any number of ranks with the same global batch sees the same global batches. The crops depend on (seed,
    epoch, index) alone: not on `num_threads`, ranks or resuming.

    `num_threads` decoders run in parallel as processes, each with one thread; 0 decodes in the calling
    process, None takes as many as there are usable cores. A picture that cannot be read or has vanished is
    replaced by the next readable one (with its own label, and the crops drawn for the missing one) and noted
    in `skipped`, name -> reason. `wait_seconds` adds up how long the consumer has waited for batches.

    Raises UserError for a folder that cannot be used, fewer pictures than a global batch, a recipe out of
    range, and, while iterating, when no picture can be read.
    """

    def __init__(
        self,
        data_path: str | os.PathLike[str] | Source,
        batch_size: int,
        *,
        seed: int = 0,
        num_threads: int | None = None,
        global_crops_scale: tuple[float, float] = (0.4, 1.0),
        local_crops_scale: tuple[float, float] = (0.05, 0.4),
        local_crops_number: int = 8,
        global_size: int = 224,
        local_size: int = 96,
        color_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
        output: Literal["float32", "uint8"] = "float32",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if output not in ("float32", "uint8"):
            raise ValueError(f"output is {output!r}; there are float32 and uint8")
        brightness, contrast, saturation, hue = color_jitter
        self.recipe = CropRecipe(
            (global_crops_scale[0], global_crops_scale[1]),
            (local_crops_scale[0], local_crops_scale[1]),
            local_crops_number,
            global_size,
            local_size,
            brightness,
            contrast,
            saturation,
            hue,
        )
        self.source = FolderSource(data_path) if isinstance(data_path, (str, os.PathLike)) else data_path
        self.batch_size = batch_size
        self.seed = seed
        self.num_threads = usable_cores() if num_threads is None else num_threads
        self.output = output
        self.rank = rank
        self.world_size = world_size
        self.skipped: dict[str, str] = {}
        self.wait_seconds = 0.0
        self._epoch = 0
        self._batch = 0
        self._iteration = 0
        self._chunks: DataLoader[Chunk] | None = None
        self._running: Iterator[Chunk] | None = None
        self._require_a_global_batch()
        _loaders.add(self)

    @property
    def classes(self) -> list[str]:
        return self.source.classes

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.source) // (self.batch_size * self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`, or, within it already, stay where it was left or resumed."""
        if epoch != self._epoch:
            self._move_to(epoch, 0)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the samples of it that all ranks together have been handed."""
        return {"epoch": self._epoch, "samples": self._batch * self.batch_size * self.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken; another global batch rounds down to whole ones."""
        self._move_to(state["epoch"], state["samples"] // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        self._iteration += 1
        iteration = self._iteration
        started = time.perf_counter()
        chunks = self._start()
        while self._batch < len(self):
            batch = self._next_batch(chunks)
            self._batch += 1
            self.wait_seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()
            if iteration != self._iteration:
                raise RuntimeError("the loader was moved, closed or iterated anew: this iteration is over")
        self._move_to(self._epoch + 1, 0)

    def close(self) -> None:
        """End the worker processes. Iterating again starts new ones."""
        self._iteration += 1
        # DataLoader has no public way to end persistent workers.
        shutdown = getattr(self._running, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()
        self._chunks = self._running = None

    def _move_to(self, epoch: int, batch: int) -> None:
        self._iteration += 1
        self._epoch, self._batch = epoch, batch

    def _require_a_global_batch(self) -> None:
        if len(self) == 0:
            count, needed = len(self.source), self.batch_size * self.world_size
            processes = f" of {self.world_size} processes" if self.world_size > 1 else ""
            at_most = count // self.world_size
            remedy = f"use a batch size of at most {at_most} or " if at_most else ""
            raise UserError(
                f"{count} pictures are fewer than one batch of {needed}{processes}: {remedy}give more pictures."
            )

    def _start(self) -> Iterator[Chunk]:
        if self._chunks is None:
            self._chunks = self._new_workers()
            # A worker inherits the mask: Ctrl-C cannot end it before it has learnt to ignore it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._running = iter(self._chunks)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        else:
            self._running = iter(self._chunks)
        return self._running

    def _new_workers(self) -> DataLoader[Chunk]:
        parallel: dict[str, Any] = {}
        if self.num_threads > 0:
            two_batches = 2 * math.ceil(self.batch_size / _CHUNK)
            parallel = {
                "persistent_workers": True,
                "prefetch_factor": max(2, math.ceil(two_batches / self.num_threads)),
                "worker_init_fn": start_worker,
            }
        return DataLoader(
            ChunkMaker(self.source, self.recipe, self.seed),  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Tasks(self),
            collate_fn=as_it_is,
            num_workers=self.num_threads,
            **parallel,
        )

    def _next_batch(self, chunks: Iterator[Chunk]) -> tuple[list[torch.Tensor], torch.Tensor]:
        parts = []
        for _ in range(math.ceil(self.batch_size / _CHUNK)):
            chunk = next(chunks)
            self.skipped.update(chunk.skipped)
            if chunk.crops is None:
                name, reason = next(iter(chunk.skipped.items()))
                raise UserError(
                    f"None of the {len(self.source)} pictures can be read, the first of them ({name}) "
                    f"for this reason: {reason}."
                )
            parts.append((chunk.crops, chunk.labels))
        crops = [
            torch.from_numpy(np.concatenate(pieces)) for pieces in zip(*(crops for crops, _ in parts), strict=True)
        ]
        labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
        return ([normalize(crop) for crop in crops] if self.output == "float32" else crops), labels


# Python would otherwise kill the workers at exit, and torch take that for a crash. Registered after the
# hooks of torch and multiprocessing, so that it runs before them.
@atexit.register
def _close_loaders() -> None:
    for loader in list(_loaders):
        loader.close()


class _Tasks:
    """What is left of the loader's epoch, in chunks; a DataLoader's sampler, iterated in the parent alone."""

    def __init__(self, loader: MultiCropLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Task]:
        loader = self._loader
        epoch, count = loader._epoch, len(loader)
        order = EpochOrder(loader.seed, epoch, len(loader.source))
        for batch in range(loader._batch, count):
            start = (batch * loader.world_size + loader.rank) * loader.batch_size
            indices = order[np.arange(start, start + loader.batch_size)]
            for first in range(0, loader.batch_size, _CHUNK):
                yield Task(epoch, indices[first : first + _CHUNK])
