"""Pictures read and cut by worker processes, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from fastdino.cores import usable_cores
from fastdino.data.reading import UnreadableImage, reason_of
from fastdino.data.reference_worker import as_it_is, start_worker
from fastdino.data.sources import Source
from fastdino.evaluate.cuts import Cut, cut_out


class Batch(NamedTuple):
    """Cut pictures (3, H, W) uint8 at `indices`, and names of those unreadable -> reason."""

    pictures: list[npt.NDArray[np.uint8]]
    indices: list[int]
    skipped: dict[str, str]


# A picture's bytes and its index in its source -> (3, H, W). Raises UnreadableImage for bytes that are no picture.
Prepare = Callable[[bytes, int], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Cutting:
    """The same `cut` of every picture, of `size`."""

    cut: Cut
    size: int

    def __call__(self, data: bytes, index: int) -> npt.NDArray[np.uint8]:
        return cut_out(data, self.cut, self.size)


def load_pictures(
    source: Source, keys: Sequence[Sequence[int]], prepare: Prepare, *, num_workers: int
) -> Iterator[Batch]:
    """The pictures at each of `keys`, a batch a key, in their order."""
    workers = min(num_workers, usable_cores())
    loader: DataLoader[Batch] = DataLoader(
        _Batches(source, prepare),  # type: ignore[arg-type]  # a mapping from keys to items is all that it needs
        batch_size=None,
        sampler=keys,
        # Starting processes takes longer than reading one batch.
        num_workers=workers if len(keys) > 1 else 0,
        collate_fn=as_it_is,
        worker_init_fn=start_worker,
        # Without its own, it would draw from torch's: training would go on differently after an evaluation.
        generator=torch.Generator(),
    )
    yield from loader


class _Batches:
    """Item `indices` is their Batch, in numpy: tensors would travel through /dev/shm, which containers keep
    small.
    """

    def __init__(self, source: Source, prepare: Prepare) -> None:
        self.source = source
        self.prepare = prepare

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        pictures: list[npt.NDArray[np.uint8]] = []
        used: list[int] = []
        skipped: dict[str, str] = {}
        for index in indices:
            try:
                picture = self.prepare(self.source.read(index), index)
            except UnreadableImage as error:
                skipped[self.source.name(index)] = str(error)
            except OSError as error:
                skipped[self.source.name(index)] = reason_of(error)
            else:
                pictures.append(picture)
                used.append(index)
        return Batch(pictures, used, skipped)
