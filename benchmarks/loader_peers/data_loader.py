"""What the peers have in common that are transforms of one picture: torch's DataLoader around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

Views = list[torch.Tensor]

# The sampler starts anew after this many pictures. DataLoader drains its queue then, which a measurement must not meet.
_ENDLESS = 10**7


def batches(
    pictures: Sequence[bytes],
    views: Callable[[bytes], Views],
    threads: int,
    batch_size: int,
    collate: Callable[[list[Views]], Views] | None = None,
) -> Iterator[Views]:
    """Endless batches of `views` of every picture, in the calling process for one thread, otherwise in that many."""
    dataset = _Transformed(pictures, views)
    workers = 0 if threads == 1 else threads
    sampler = RandomSampler(dataset, num_samples=_ENDLESS)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        drop_last=True,
        # Workers take over how many threads their libraries may use; new interpreters would not.
        multiprocessing_context="fork" if workers else None,
    )
    yield from loader


class _Transformed(Dataset[Views]):
    def __init__(self, pictures: Sequence[bytes], views: Callable[[bytes], Views]) -> None:
        self._pictures = pictures
        self._views = views

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Views:
        return self._views(self._pictures[index])
