"""Batches from the C++ thread pool: no processes, no copies, no interpreter lock but for what Python must read."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fastdino.data import engine
from fastdino.data.batches import DTYPES, Batch, BatchSettings, counted, nothing_readable, opening, unexpected
from fastdino.data.memory import BatchMemory
from fastdino.data.order import EpochOrder
from fastdino.data.reading import UnreadableImage, read_image, reason_of
from fastdino.data.sources import Source, announcing, file_table
from fastdino.errors import UserError


class _Ahead(NamedTuple):
    """A batch that the threads are preparing, and the memory that they write to."""

    epoch: int
    batch: int
    crops: list[torch.Tensor]


class _Run:
    """A pool, and the batches that it has been given and nobody has taken yet."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.ahead: deque[_Ahead] = deque()
        # Whether `ahead` is what the pool has: Ctrl-C can come between the two.
        self.settled = False


class NativeBatches:
    """Keeps some batches submitted to the pool, in the order of epochs and batches from the last one taken on.

    Back-pressure is the number of those: another is submitted only when one is taken. A batch's memory is used
    again once nobody holds its tensors any more.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self.name = f"C++ ({engine.simd()}), {counted(max(1, settings.threads), 'thread')}"
        self._settings = settings
        self._memory = BatchMemory(settings.batch_size, settings.recipe.sizes(), DTYPES[settings.output])
        self._sequential = bool(getattr(settings.source, "sequential", False))
        self._announce = announcing(settings.source)
        # One that is done while the next is on its way, and enough samples in flight for every thread.
        self._depth = 2 + math.ceil(2 * settings.threads / settings.batch_size)
        self._run: _Run | None = None
        self._spent: dict[str, float] = {}

    def take(self, epoch: int, batch: int) -> tuple[Batch, dict[str, str]]:
        if self._run is None:
            with opening():
                self._run = _Run(self._new_pool())
        # Its own for as long as this takes: close() may come from another thread.
        run = self._run
        settled, run.settled = run.settled, False
        if not settled or not run.ahead or (run.ahead[0].epoch, run.ahead[0].batch) != (epoch, batch):
            self._restart(run, epoch, batch)
        self._fill(run)
        used, passed_over, unreadable, error = run.pool.wait()
        crops = run.ahead.popleft().crops
        self._fill(run)
        run.settled = True
        source = self._settings.source
        if error is not None:
            self._raise(*error)
        skipped = {source.name(index): reason for index, reason in passed_over}
        if unreadable:
            raise UserError(nothing_readable(source, skipped))
        labels = torch.tensor([source.label(int(index)) for index in used], dtype=torch.int64)
        return (crops, labels), skipped

    def stats(self) -> dict[str, float]:
        now = self._run.pool.spent() if self._run is not None else {}
        return {stage: now.get(stage, 0.0) + self._spent.get(stage, 0.0) for stage in {**now, **self._spent}}

    def close(self) -> None:
        if self._run is not None:
            self._spent = self.stats()
            run, self._run = self._run, None
            run.pool.close()
            if self._announce is not None:
                self._announce(np.empty(0, dtype=np.int64), True)

    def _restart(self, run: _Run, epoch: int, batch: int) -> None:
        run.pool.cancel()
        run.ahead.clear()
        if self._sequential:
            self._settings.source.start_epoch(epoch)  # type: ignore[attr-defined]
        self._submit(run, epoch, batch, anew=True)

    def _fill(self, run: _Run) -> None:
        while 0 < len(run.ahead) < self._depth:
            last = run.ahead[-1]
            if last.batch + 1 < self._settings.batches():
                self._submit(run, last.epoch, last.batch + 1)
            elif not self._sequential:
                self._submit(run, last.epoch + 1, 0)
            else:
                # A stream's next epoch begins when the loader gets there.
                return

    def _submit(self, run: _Run, epoch: int, batch: int, anew: bool = False) -> None:
        crops = self._memory.crops()
        addresses = [crop.data_ptr() for crop in crops]
        first = self._settings.first_position(batch)
        # First here, so that the memory is held for as long as threads may write to it.
        run.ahead.append(_Ahead(epoch, batch, crops))
        if self._announce is not None:
            order = EpochOrder(self._settings.seed, epoch, len(self._settings.source))
            self._announce(order[np.arange(first, first + self._settings.batch_size)], anew)
        run.pool.submit(engine.word(epoch), first, self._settings.batch_size, addresses)

    def _new_pool(self) -> Any:
        settings = self._settings
        return engine.new_pool(
            settings.recipe,
            seed=settings.seed,
            pictures=len(settings.source),
            threads=max(1, settings.threads),
            output=settings.output,
            sequential=self._sequential,
            read=_Reader(settings.source),
            files=file_table(settings.source),
            decode=_decode,
        )

    def _raise(self, index: int, error: BaseException) -> None:
        if isinstance(error, UserError):
            raise error
        raise unexpected(self._settings.source, index, error) from error


class _Reader:
    """Called by the pool's threads where the source has no file table."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __call__(self, index: int) -> bytes | str:
        try:
            return bytes(self._source.read(index))
        except UnreadableImage as error:
            return str(error)
        except OSError as error:
            return reason_of(error)


def _decode(data: bytes) -> npt.NDArray[np.uint8] | str:
    """Called by the pool's threads for what libjpeg-turbo does not read: Pillow has the last word."""
    try:
        return np.asarray(read_image(data))
    except UnreadableImage as error:
        return str(error)
