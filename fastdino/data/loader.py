"""Batches of crops for training."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from fastdino.cores import usable_cores
from fastdino.data.batches import DTYPES, Batch, BatchSettings, Output, forbid_opening, make_batches
from fastdino.data.plan import CropRecipe
from fastdino.data.sources import Source, open_source
from fastdino.errors import UserError

_loaders: weakref.WeakSet[MultiCropLoader] = weakref.WeakSet()


class MultiCropLoader:
    """Batches of augmented crops of a folder's pictures, of tar shards', or of any `Source`'s.

    Iterating yields (crops, labels): the crops in the order g1, g2, l1 ... ln, each (batch, 3, size, size),
    float32 or bfloat16 and normalised, or uint8; labels int64 (batch,), -1 for none. One iteration is the rest of
    the current epoch; the next one continues with the following epoch, or with the one given to `set_epoch`. An
    epoch has as many whole global batches as there are pictures for; rank r of W takes the r-th part of each,
    so any number of ranks with the same global batch sees the same global batches. The crops depend on (seed,
    epoch, index) alone: not on `num_threads`, ranks, resuming or implementation.

    "native" decodes and crops in `num_threads` C++ threads (at least one; None: the usable cores), prepares about
    two batches ahead, and uses a batch's memory again once none of its tensors is left. "reference" does the same
    with Pillow in `num_threads` processes (0: in this one). "auto" is "native" where the extension is built.

    A picture that cannot be read or has vanished is replaced by the next readable one (with its own label, and
    the crops drawn for the missing one) and noted in `skipped`, name -> reason. `wait_seconds` adds up how long
    the consumer has waited for batches; `implementation` says for people which one runs, and on what.

    Raises UserError for pictures that cannot be used, fewer of them than a global batch, a recipe out of range,
    and, while iterating, when no picture can be read; ValueError for an output or implementation that does not
    exist; while iterating, RuntimeError with the picture's name for anything else that its reading raises.
    """

    def __init__(
        self,
        data_path: str | os.PathLike[str] | Source | Iterable[Any],
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
        output: Output = "float32",
        rank: int = 0,
        world_size: int = 1,
        implementation: Literal["auto", "native", "reference"] = "auto",
    ) -> None:
        if output not in DTYPES:
            raise ValueError(f"output is {output!r}; there are {', '.join(DTYPES)}")
        if implementation not in ("auto", "native", "reference"):
            raise ValueError(f"implementation is {implementation!r}; there are auto, native and reference")
        self.recipe = CropRecipe(
            (global_crops_scale[0], global_crops_scale[1]),
            (local_crops_scale[0], local_crops_scale[1]),
            local_crops_number,
            global_size,
            local_size,
            *color_jitter,
        )
        self.source = open_source(data_path)
        threads = usable_cores() if num_threads is None else num_threads
        self._settings = BatchSettings(self.source, self.recipe, batch_size, seed, threads, output, rank, world_size)
        self._require_a_global_batch()
        self._batches = make_batches(self._settings, implementation)
        self.implementation = self._batches.name
        self.skipped: dict[str, str] = {}
        self.wait_seconds = 0.0
        self._epoch = 0
        self._batch = 0
        self._iteration = 0
        _loaders.add(self)

    @property
    def classes(self) -> list[str]:
        return self.source.classes

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._settings.batches()

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`, or, within it already, stay where it was left or resumed."""
        if epoch != self._epoch:
            self._move_to(epoch, 0)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the samples of it that all ranks together have been handed."""
        return {"epoch": self._epoch, "samples": self._batch * self._global_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken; another global batch rounds down to whole ones."""
        self._move_to(state["epoch"], state["samples"] // self._global_batch)

    def stats(self) -> dict[str, float]:
        """Seconds since the start by stage, added up over the threads: read, decode, pillow (what libjpeg-turbo
        does not read), resample, color, blur, store, idle; `waiting` is the consumer's. Only the last is known of
        the reference.
        """
        return {**self._batches.stats(), "waiting": self.wait_seconds}

    def __iter__(self) -> Iterator[Batch]:
        self._iteration += 1
        iteration = self._iteration
        while self._batch < len(self):
            started = time.perf_counter()
            batch, skipped = self._batches.take(self._epoch, self._batch)
            self.skipped.update(skipped)
            self._batch += 1
            self.wait_seconds += time.perf_counter() - started
            yield batch
            # Its memory is free for the next batches as soon as the consumer lets go of it.
            del batch
            if iteration != self._iteration:
                raise RuntimeError("the loader was moved, closed or iterated anew: this iteration is over")
        self._move_to(self._epoch + 1, 0)

    def close(self) -> None:
        """End the threads or processes. Iterating again starts new ones."""
        self._iteration += 1
        self._batches.close()

    @property
    def _global_batch(self) -> int:
        return self._settings.batch_size * self._settings.world_size

    def _move_to(self, epoch: int, batch: int) -> None:
        self._iteration += 1
        self._epoch, self._batch = epoch, batch

    def _require_a_global_batch(self) -> None:
        if len(self) == 0:
            count, ranks = len(self.source), self._settings.world_size
            processes = f" of {ranks} processes" if ranks > 1 else ""
            at_most = count // ranks
            remedy = f"use a batch size of at most {at_most} or " if at_most else ""
            raise UserError(
                f"{count} pictures are fewer than one batch of {self._global_batch}{processes}: "
                f"{remedy}give more pictures."
            )


# Threads must not outlive the interpreter that they call, nor worker processes their parent: Python would kill
# these at exit, and torch take that for a crash. Registered after the hooks of torch and multiprocessing, so that
# it runs before them.
@atexit.register
def _close_loaders() -> None:
    forbid_opening()
    for loader in list(_loaders):
        loader.close()
