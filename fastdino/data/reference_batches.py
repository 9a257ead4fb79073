"""Batches from Pillow, in worker processes: what machines without the extension train with."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from fastdino.data.batches import DTYPES, Batch, BatchSettings, counted, nothing_readable, opening
from fastdino.data.normalize import normalize
from fastdino.data.order import EpochOrder
from fastdino.data.reference_worker import Chunk, ChunkMaker, Task, as_it_is, start_worker
from fastdino.errors import UserError

# Pictures that a worker prepares at a time: 8 MB of crops. Whole batches would make the first one wait for a
# single worker, and memory grow with workers times batch size.
_CHUNK = 16


class ReferenceBatches:
    """A DataLoader over what is left of an epoch. `threads` counts its processes; 0 works in the calling one."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._sequential = bool(getattr(settings.source, "sequential", False))
        # A stream has one reader, and it is this process.
        self._processes = 0 if self._sequential else settings.threads
        self.name = f"Pillow, {counted(self._processes, 'process')}" if self._processes else "Pillow, in this process"
        self._tasks = _Tasks(settings, self._sequential)
        self._chunks: DataLoader[Chunk] | None = None
        self._running: Iterator[Chunk] | None = None
        self._next = (-1, -1)

    def take(self, epoch: int, batch: int) -> tuple[Batch, dict[str, str]]:
        if self._running is None or self._next != (epoch, batch):
            self._restart(epoch, batch)
        assert self._running is not None
        self._next = (epoch, batch + 1)
        skipped: dict[str, str] = {}
        parts = []
        for _ in range(math.ceil(self._settings.batch_size / _CHUNK)):
            chunk = next(self._running)
            skipped.update(chunk.skipped)
            if chunk.mistake is not None:
                raise UserError(chunk.mistake)
            if chunk.crops is None:
                raise UserError(nothing_readable(self._settings.source, chunk.skipped))
            parts.append((chunk.crops, chunk.labels))
        crops = [
            torch.from_numpy(np.concatenate(pieces)) for pieces in zip(*(crops for crops, _ in parts), strict=True)
        ]
        labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
        return ([self._converted(crop) for crop in crops], labels), skipped

    def stats(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        # DataLoader has no public way to end persistent workers.
        shutdown = getattr(self._running, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()
        self._chunks = self._running = None

    def _converted(self, crop: torch.Tensor) -> torch.Tensor:
        return crop if self._settings.output == "uint8" else normalize(crop).to(DTYPES[self._settings.output])

    def _restart(self, epoch: int, batch: int) -> None:
        self._tasks.epoch, self._tasks.batch = epoch, batch
        if self._sequential:
            self._settings.source.start_epoch(epoch)  # type: ignore[attr-defined]
        if self._chunks is not None:
            self._running = iter(self._chunks)
            return
        with opening():
            self._chunks = self._new_workers()
            # A worker inherits the mask: Ctrl-C cannot end it before it has learnt to ignore it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._running = iter(self._chunks)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _new_workers(self) -> DataLoader[Chunk]:
        settings = self._settings
        parallel: dict[str, Any] = {}
        if self._processes > 0:
            two_batches = 2 * math.ceil(settings.batch_size / _CHUNK)
            parallel = {
                "persistent_workers": True,
                "prefetch_factor": max(2, math.ceil(two_batches / self._processes)),
                "worker_init_fn": start_worker,
            }
        return DataLoader(
            ChunkMaker(settings.source, settings.recipe, settings.seed),  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._tasks,
            collate_fn=as_it_is,
            num_workers=self._processes,
            **parallel,
        )


class _Tasks:
    """What is left of an epoch, in chunks; a DataLoader's sampler, iterated in the parent alone."""

    def __init__(self, settings: BatchSettings, sequential: bool) -> None:
        self._settings = settings
        self._sequential = sequential
        self.epoch = 0
        self.batch = 0

    def __iter__(self) -> Iterator[Task]:
        settings, epoch = self._settings, self.epoch
        order = EpochOrder(settings.seed, epoch, len(settings.source))
        for batch in range(self.batch, settings.batches()):
            start = settings.first_position(batch)
            positions = np.arange(start, start + settings.batch_size)
            indices = positions if self._sequential else order[positions]
            for first in range(0, settings.batch_size, _CHUNK):
                yield Task(epoch, indices[first : first + _CHUNK])
